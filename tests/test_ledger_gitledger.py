import multiprocessing
from pathlib import Path

import pytest

from dstack.ledger.cache import Cache
from dstack.ledger.gitledger import GitLedger
from dstack.ledger.ledger import Ledger
from dstack.ledger.objects import FILE, Entry, Objects
from dstack.ledger.push import RefUpdate
from dstack.ledger.runs import RootFiles, write_root
from dstack.ledger.submit import create_repository
from dstack.model import job as jobs
from dstack.model import refs, runtext
from dstack.model.errors import Conflict, Failed, Invalid, Unavailable
from dstack.model.events import Assigned, Planned, Started
from dstack.model.job import Job
from dstack.model.observation import (
    AppendNotes,
    BrokenRun,
    Change,
    DeleteRef,
    Outcome,
    SetAssignments,
    SetRegistration,
    SetWanted,
)
from dstack.model.pool import Attempt, Capacity, Registration
from dstack.model.refs import RunKey
from dstack.model.runspec import Desired, Wanted
from tests.repositories import NOW, WORKFLOWS, Place, bare, hook, place, record_of, sh, spec, work

KEY = RunKey("fast-rabbit-1", "0123456789ab")


@pytest.fixture
def here(tmp_path: Path) -> Place:
    top = work(tmp_path / "code")
    sh(top, "remote", "add", "origin", str(bare(tmp_path / "remote.git")))
    sh(top, "push", "--quiet", "origin", "main")
    return place(top, tmp_path / "cache")


def job(root: str, workflow: str = "hello") -> Job:
    return Job(root=root, workflow=workflow, commands=("true",))


def planned(root: str, key: RunKey, *made: Job) -> AppendNotes:
    blobs = {jobs.job_oid(one): jobs.to_bytes(one) for one in made}
    event = Planned(seq=1, at=NOW, generation=1, jobs=tuple(blobs), store="file:///s", message="planned")
    return AppendNotes(key=key, writer="controller", events={root: (event,)}, jobs=blobs)


def assigned(key: RunKey, oid: str, seq: int = 1, runner: str = "r") -> AppendNotes:
    event = Assigned(
        seq=seq, at=NOW, generation=1, attempt=seq, runner=runner, instance="i", nonce="n", message="goes to r"
    )
    return AppendNotes(key=key, writer="controller", events={oid: (event,)})


def attempt(oid: str, root: str, number: int = 1) -> Attempt:
    return Attempt(
        repository="repository-1",
        run=str(KEY),
        root=root,
        snapshot=root,
        job=oid,
        attempt=number,
        instance="i",
        nonce="n",
        log="logs/x",
        store="file:///s",
    )


def registration(runner: str) -> Registration:
    return Registration(
        repository="repository-1",
        runner=runner,
        instance="i",
        start="s",
        host="h",
        capacity=Capacity(cpu=2, memory=1024),
        store="file:///s",
        at=NOW,
    )


def test_it_is_a_ledger(here: Place) -> None:
    ledger: Ledger = here.ledger
    assert ledger.observe().refs == {}


def test_a_submitted_run_is_observed(here: Place) -> None:
    made = here.submit()
    seen = here.ledger.observe()
    record = record_of(seen)
    assert (record.root, record.key, record.workflows.decode()) == (made.root, made.key, WORKFLOWS)
    assert (record.wanted, record.variables) == (Wanted(), None)
    assert here.ledger.observe() is seen
    subject = sh(Path(here.cache.url), "log", "-1", "--format=%s", refs.run_branch("fast-rabbit-1"))
    assert subject == "Run fast-rabbit-1: hello [skip ci]"


def test_the_users_repository_is_untouched(here: Place) -> None:
    (here.code.top / "new.txt").write_text("new")
    before = {path: path.read_bytes() for path in here.code.top.rglob("*") if path.is_file()}
    here.submit()
    here.ledger.observe()
    assert {path: path.read_bytes() for path in here.code.top.rglob("*") if path.is_file()} == before


def test_hooks_of_the_user_do_not_run(here: Place, tmp_path: Path) -> None:
    for name in (
        "pre-commit",
        "post-commit",
        "pre-push",
        "post-index-change",
        "reference-transaction",
        "post-checkout",
    ):
        hook(here.code.top / ".git", name, f"touch {tmp_path}/ran-{name}")
    (here.code.top / "new.txt").write_text("new")
    here.submit()
    here.ledger.observe()
    assert not list(tmp_path.glob("ran-*"))


@pytest.mark.parametrize(
    "name", ["GIT_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE", "GIT_WORK_TREE"]
)
def test_a_poisoned_environment_harms_nothing(here: Place, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "/nowhere")
    here.submit()
    assert record_of(here.ledger.observe()).name == "fast-rabbit-1"


def test_a_taken_name_is_a_conflict(here: Place, tmp_path: Path) -> None:
    here.submit()
    with pytest.raises(Conflict, match="'fast-rabbit-1' already"):
        place(here.code.top, tmp_path / "other").submit()


def test_a_refused_submit_says_what_to_do(here: Place) -> None:
    hook(Path(here.cache.url), "pre-receive", "echo 'branch is protected by a rule' >&2; exit 1")
    with pytest.raises(Failed, match=r"branch is protected by a rule.*exempt dstack/\*"):
        here.submit()


def test_a_submit_whose_answer_is_lost_is_found_to_have_won(here: Place) -> None:
    hook(Path(here.cache.url), "reference-transaction", 'test "$1" != committed || kill -9 $PPID')
    made = here.submit()
    (Path(here.cache.url) / "hooks/reference-transaction").unlink()
    assert record_of(here.ledger.observe()).root == made.root


def test_a_submit_that_did_not_arrive_is_unavailable(here: Place) -> None:
    hook(Path(here.cache.url), "pre-receive", "kill -9 $PPID")
    with pytest.raises(Unavailable):
        here.submit()


def test_a_whole_turn_is_one_push_and_comes_back_as_it_was(here: Place, tmp_path: Path) -> None:
    made = here.submit()
    one = job(made.root)
    oid = jobs.job_oid(one)
    seen = here.ledger.observe()
    held = attempt(oid, made.root)
    turn: list[Change] = [
        planned(made.root, made.key, one),
        assigned(made.key, oid),
        SetAssignments(runner="r", attempts={held.key: held}, jobs={held.key: oid}),
        SetRegistration(registration=registration("r")),
        SetWanted(run="fast-rabbit-1", wanted=Wanted(desired=Desired.STOP, generation=1)),
    ]
    assert here.ledger.commit(turn, seen, atomic=True).won
    other = GitLedger(Cache(tmp_path / "other", here.cache.url))
    for ledger in (here.ledger, other):
        now = ledger.observe()
        notes = now.notes[made.key]["controller"]
        assert [type(event) for event in (*notes.on(made.root).events, *notes.on(oid).events)] == [Planned, Assigned]
        assert notes.jobs == {oid[:12]: oid}
        assert ledger.job(oid) == jobs.to_bytes(one)
        assert now.assignments["r"].attempts == {held.key: held}
        assert now.assignments["r"].jobs == {held.key: oid}
        assert now.runners == {"r": registration("r")}
        record = record_of(now)
        assert (record.root, record.wanted.desired, record.wanted.root) == (made.root, Desired.STOP, made.root)
        assert now.problems == ()
    assert here.ledger.job("0" * 40) is None


def test_people_can_read_the_notes_with_git(here: Place) -> None:
    made = here.submit()
    oid = jobs.job_oid(job(made.root))
    here.ledger.commit(
        [planned(made.root, made.key, job(made.root)), assigned(made.key, oid)], here.ledger.observe(), atomic=True
    )
    remote = Path(here.cache.url)
    told = sh(remote, "log", "--notes=dstack/*", made.root)
    assert '"event":"planned"' in told
    assert '"event":"assigned"' in sh(remote, "notes", f"--ref=dstack/{made.key}/controller", "show", oid)
    assert '"workflow":"hello"' in sh(
        remote, "cat-file", "-p", f"refs/notes/dstack/{made.key}/controller:jobs/{oid[:12]}"
    )


def test_appending_goes_on_behind_what_is_there(here: Place) -> None:
    made = here.submit()
    oid = jobs.job_oid(job(made.root))
    for seq in (1, 2, 3):
        assert here.ledger.commit([assigned(made.key, oid, seq)], here.ledger.observe(), atomic=True).won
    note = here.ledger.observe().notes[made.key]["controller"].on(oid)
    assert ([event.seq for event in note.events], note.lines) == ([1, 2, 3], 3)


def test_notes_that_git_itself_has_rewritten_are_read_and_appended_to(here: Place) -> None:
    made = here.submit()
    oid = jobs.job_oid(job(made.root))
    here.ledger.commit(
        [planned(made.root, made.key, job(made.root)), assigned(made.key, oid)], here.ledger.observe(), atomic=True
    )
    remote, ref = Path(here.cache.url), f"--ref=dstack/{made.key}/controller"
    sh(remote, "config", "user.name", "Ada")
    sh(remote, "config", "user.email", "ada@example.org")
    sh(remote, "notes", ref, "append", "-m", "what is this", oid)
    seen = here.ledger.observe()
    assert len(seen.problems) == 1
    assert "is no event" in seen.problems[0]
    assert here.ledger.commit([assigned(made.key, oid, 2)], seen, atomic=True).won
    notes = here.ledger.observe().notes[made.key]["controller"]
    assert [event.seq for event in notes.on(oid).events] == [1, 2]
    assert len(notes.on(made.root).events) == 1


def test_of_two_controllers_one_decides(here: Place, tmp_path: Path) -> None:
    made = here.submit()
    oid = jobs.job_oid(job(made.root))
    other = GitLedger(Cache(tmp_path / "other", here.cache.url))
    mine, theirs = here.ledger.observe(), other.observe()
    turn: list[Change] = [assigned(made.key, oid), SetAssignments(runner="r", attempts={}, jobs={})]
    assert here.ledger.commit(turn, mine, atomic=True).won
    lost = other.commit(turn, theirs, atomic=True)
    assert set(lost.outcomes.values()) == {Outcome.LOST}
    assert len(other.observe().notes[made.key]["controller"].on(oid).events) == 1


def test_a_ref_can_be_removed(here: Place) -> None:
    here.ledger.commit([SetRegistration(registration=registration("r"))], here.ledger.observe(), atomic=True)
    seen = here.ledger.observe()
    assert here.ledger.commit([DeleteRef(ref=refs.runner("r"))], seen, atomic=True).won
    assert here.ledger.observe().runners == {}


def test_an_empty_turn_pushes_nothing(here: Place) -> None:
    assert here.ledger.commit([], here.ledger.observe(), atomic=True).outcomes == {}


@pytest.mark.parametrize("atomic", [True, False])
def test_a_change_that_cannot_be_made_is_refused_not_raised(here: Place, *, atomic: bool) -> None:
    turn: list[Change] = [SetWanted(run="nobody-1", wanted=Wanted()), SetRegistration(registration=registration("r"))]
    pushed = here.ledger.commit(turn, here.ledger.observe(), atomic=atomic)
    assert pushed.outcomes[refs.run_branch("nobody-1")] is Outcome.REFUSED
    assert pushed.outcomes[refs.runner("r")] is (Outcome.REFUSED if atomic else Outcome.WON)
    assert "no run nobody-1" in pushed.reasons[refs.run_branch("nobody-1")]


def test_what_did_not_change_is_the_same_value(here: Place) -> None:
    first = here.submit()
    here.submit("other-1")
    oid = jobs.job_oid(job(first.root))
    here.ledger.commit([assigned(first.key, oid)], here.ledger.observe(), atomic=True)
    before = here.ledger.observe()
    change = AppendNotes(key=first.key, writer="r", events={oid: (_started(),)})
    here.ledger.commit([change], before, atomic=False)
    after = here.ledger.observe()
    assert after.runs["other-1"] is before.runs["other-1"]
    assert after.notes[first.key]["controller"] is before.notes[first.key]["controller"]
    assert before.notes[first.key].keys() == {"controller"}
    assert after.notes[first.key]["r"].on(oid).events == (_started(),)


def test_what_is_broken_is_reported_and_everything_else_goes_on(here: Place) -> None:
    good = here.submit()
    objects = here.cache.objects
    empty = objects.write_commit(objects.write_tree({}), [], "x")
    names = [
        refs.run_branch("by-hand-1"),
        refs.runner("broken"),
        refs.assignment("broken"),
        refs.ID,
        refs.CONFIG,
        "refs/heads/dstack/runs/Not A-Name".replace(" ", "_"),
    ]
    blob = objects.write_blob(b"x")
    odd = {b"runner.json": Entry(FILE, objects.write_blob(b"{")), b"not-an-attempt": Entry(FILE, blob)}
    odd_commit = objects.write_commit(objects.write_tree(odd), [], "odd")
    updates = [RefUpdate(name, None, empty) for name in names if "broken" not in name]
    updates += [RefUpdate(name, None, odd_commit) for name in names if "broken" in name]
    updates.append(RefUpdate(refs.note(KEY, "r"), None, blob))
    assert here.cache.push(updates, atomic=True).won
    seen = here.ledger.observe()
    assert record_of(seen).root == good.root
    assert seen.runs["by-hand-1"] == BrokenRun(name="by-hand-1", tip=empty, problem="run.yaml is missing")
    assert (seen.runners, seen.repository, seen.config) == ({}, None, None)
    told = "\n".join(seen.problems)
    for name in (
        refs.runner("broken"),
        refs.assignment("broken"),
        refs.ID,
        refs.CONFIG,
        names[-1],
        refs.note(KEY, "r"),
    ):
        assert name in told
    assert here.ledger.observe() is seen
    here.submit("next-1")
    assert here.ledger.observe().problems == seen.problems


def _forged(objects: Objects, here: Place, kind: str) -> str:
    """A commit that no run branch can lead to."""
    mine = here.submit("mine-1")
    record = record_of(here.ledger.observe(), "mine-1")
    texts = {
        "another root": runtext.to_text(record.spec, Wanted(root="0" * 40, generation=1)),
        "another name": runtext.to_text(spec("mine-1"), Wanted()),
        "not yaml": "{{{{",
        "huge": "# " + "x" * 2_000_000,
    }
    data = texts[kind].encode()
    tree = {**objects.tree(objects.commit(mine.root).tree), b"run.yaml": Entry(FILE, objects.write_blob(data))}
    return objects.write_commit(objects.write_tree(tree), [mine.root] if kind == "another root" else [], kind)


@pytest.mark.parametrize("kind", ["another root", "another name", "not yaml", "huge"])
def test_a_forged_branch_is_never_a_run(here: Place, kind: str) -> None:
    tip = _forged(here.cache.objects, here, kind)
    assert here.cache.push([RefUpdate(refs.run_branch("forged-1"), None, tip)], atomic=True).won
    assert isinstance(here.ledger.observe().runs["forged-1"], BrokenRun)


def test_half_of_a_push_can_be_seen(here: Place) -> None:
    """A crash of the remote may leave the assignment without the note that decided it."""
    made = here.submit()
    oid = here.cache.objects.write_blob(jobs.to_bytes(job(made.root)))
    held = attempt(oid, made.root)
    change = SetAssignments(runner="r", attempts={held.key: held}, jobs={held.key: oid})
    here.ledger.commit([change], here.ledger.observe(), atomic=True)
    seen = here.ledger.observe()
    assert (seen.notes, set(seen.assignments), seen.problems) == ({}, {"r"}, ())


def test_an_assignment_with_a_job_under_another_id_is_left_out(here: Place) -> None:
    held = attempt("0" * 40, "1" * 40)
    oid = here.cache.objects.write_blob(b"another job")
    change = SetAssignments(runner="r", attempts={held.key: held}, jobs={held.key: oid})
    here.ledger.commit([change], here.ledger.observe(), atomic=True)
    seen = here.ledger.observe()
    assert (seen.assignments["r"].attempts, len(seen.problems)) == ({}, 1)


def test_a_job_that_is_nowhere_is_not_assigned(here: Place) -> None:
    held = attempt("0" * 40, "1" * 40)
    change = SetAssignments(runner="r", attempts={held.key: held}, jobs={held.key: "0" * 40})
    pushed = here.ledger.commit([change], here.ledger.observe(), atomic=True)
    assert pushed.outcomes == {refs.assignment("r"): Outcome.REFUSED}


def _create(path: Path, url: str, name: str) -> str:
    return create_repository(Cache(path, url), name, b"store: x\n")


def test_of_many_who_set_up_a_repository_one_names_it(tmp_path: Path) -> None:
    remote = bare(tmp_path / "remote.git")
    args = [(tmp_path / f"cache-{n}", str(remote), f"repository-{n}") for n in range(4)]
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        names = set(pool.starmap(_create, args))
    seen = GitLedger(Cache(tmp_path / "cache", str(remote))).observe()
    assert names == {seen.repository}
    assert seen.config == b"store: x\n"


def test_settings_that_are_there_stay(here: Place) -> None:
    create_repository(here.cache, "repository-1", b"store: mine\n")
    seen = here.ledger.observe()
    here.ledger.commit([DeleteRef(ref=refs.ID)], seen, atomic=True)
    assert create_repository(here.cache, "repository-2", b"store: other\n") == "repository-2"
    assert here.ledger.observe().config == b"store: mine\n"


def test_a_root_that_could_not_be_read_back_is_not_written(here: Place) -> None:
    snapshot = here.snapshot()
    with pytest.raises(Invalid):
        write_root(
            here.cache.objects, runtext, spec("no name!"), RootFiles(workflows=snapshot.workflows.oid, variables=None)
        )


def _started() -> Started:
    return Started(seq=1, at=NOW, attempt=1, instance="i", nonce="n", log="logs/x")
