"""Triggers over real git: each event starts its runs once, whoever dies, whoever is quicker, however the news came."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from controller.triggering import Triggering
from controller.turn import Controller
from dstack.ledger import folder, git
from dstack.ledger.cache import Cache
from dstack.ledger.codecache import CodeCache, make_lender
from dstack.ledger.facts import FactFinder
from dstack.ledger.git import Running
from dstack.ledger.gitledger import GitLedger
from dstack.ledger.ledger import Ledger
from dstack.ledger.remote import find_remote
from dstack.ledger.seentree import SeenReader, read_seen, write_seen
from dstack.ledger.submit import create_repository
from dstack.ledger.triggered import Triggered
from dstack.model import refs
from dstack.model.errors import Unavailable
from dstack.model.observation import Change, Observation, Pushed, RunRecord
from dstack.model.seen import Move, Trouble
from tests.calls import Desk
from tests.git_servers import HttpServer, running
from tests.model_values import moment
from tests.repositories import bare, hook, sh, work
from tests.test_controller import controller

PUSH = "workflows: [{name: test, commands: [x], on: push}, {name: docs, commands: [x], on: {push: {paths: docs}}}]\n"
PULL = "workflows: [{name: check, commands: [x], on: pull-request}]\n"


class Killed(BaseException):
    """The process dies here."""


@dataclass
class Dying:
    """A ledger whose process is killed before its push, or behind it; or whose answer gets lost."""

    inner: GitLedger
    when: str = ""

    def observe(self) -> Observation:
        return self.inner.observe()

    def commit(self, changes: Sequence[Change], seen: Observation, *, atomic: bool) -> Pushed:
        when, self.when = self.when, ""
        if when == "before":
            raise Killed
        pushed = self.inner.commit(changes, seen, atomic=atomic)
        if when == "behind":
            raise Killed
        if when == "lost":
            msg = "the answer got lost"
            raise Unavailable(msg)
        return pushed

    def job(self, oid: str) -> bytes | None:
        return self.inner.job(oid)


@dataclass
class Town:
    """A work tree, the remote of its code, and one for the state: the same, unless `apart`."""

    top: Path
    apart: bool = False
    url: str = ""
    controllers: int = 0
    time: float = 0.0
    code: Path = field(init=False)
    state: Path = field(init=False)
    tree: Path = field(init=False)

    def __post_init__(self) -> None:
        self.code, self.tree = bare(self.top / "code"), work(self.top / "work")
        self.state = bare(self.top / "state") if self.apart else self.code
        sh(self.tree, "remote", "add", "origin", str(self.code))
        self.push(PUSH)
        create_repository(Cache(self.top / "setup", str(self.state)), "b" * 32, b"")

    def push(self, workflows: str | None = None, branch: str = "main", **files: str) -> str:
        """Commit and push; the commit."""
        for name, text in {".dstack/workflows.yaml": workflows or PUSH, **files}.items():
            (self.tree / name).parent.mkdir(exist_ok=True)
            (self.tree / name).write_text(text)
        sh(self.tree, "add", "--all")
        sh(self.tree, "commit", "--quiet", "--allow-empty", "-m", f"work {self.time}")
        sh(
            self.tree,
            "push",
            "--quiet",
            "--force",
            "origin",
            f"HEAD:{branch if '/' in branch else f'refs/heads/{branch}'}",
        )
        return sh(self.tree, "rev-parse", "HEAD")

    def controller(self, wrap: Callable[[GitLedger], Ledger] = lambda ledger: ledger) -> Controller:
        self.controllers += 1
        place = self.top / f"place-{self.controllers}"
        place.mkdir()
        remote = find_remote(self.url or str(self.code), self.top)
        code = CodeCache(place / "code", remote)
        make_lender(place / "code")
        lenders = (code.objects_folder,)
        objects = folder.open_folder(place / "triggers", lenders)
        source = Triggered(code, FactFinder(code=code, objects=objects), url=None, apart=self.apart)
        state = find_remote(self.url, self.top).url if self.url and not self.apart else str(self.state)
        context = remote.context(place / "cache") if self.url and not self.apart else None
        cache = Cache(place / "cache", state, lenders=lenders if self.apart or self.url else (), context=context)
        ledger = wrap(GitLedger(cache))
        made = controller(ledger)
        made.triggers = Triggering(
            open_code=lambda: source,
            poll=2.0,
            watched=True,
            jitter=lambda: 0.5,
            entropy=made.entropy,
            told=lambda: None,
            start=lambda work: work(),
            clock=lambda: 0.0,
        )
        return made

    def turns(self, *controllers: Controller, times: int = 4) -> None:
        for _ in range(times):
            for one in controllers:
                self.time += 60.0
                one.step(moment(self.time))

    def runs(self) -> list[RunRecord]:
        seen = GitLedger(Cache(self.top / "reader", str(self.state))).observe()
        return [record for record in seen.runs.values() if isinstance(record, RunRecord)]

    def started(self) -> list[str]:
        return sorted(f"{run.spec.workflow} {run.spec.code.commit}" for run in self.runs())


def test_what_is_there_at_first_counts_as_seen_and_a_push_starts_what_wants_it(tmp_path: Path) -> None:
    town = Town(tmp_path)
    one = town.controller()
    town.turns(one)
    assert town.started() == []
    commit = town.push()
    town.turns(one)
    assert town.started() == [f"test {commit}"]
    (run,) = town.runs()
    assert run.spec.via == "push"
    assert run.spec.submitted_by == "Ada Tester <ada@example.org>"
    assert run.spec.trigger
    assert run.spec.trigger.ref == "refs/heads/main"
    assert sh(town.state, "rev-parse", refs.snapshot(run.key)) == commit
    assert sh(town.state, "show", f"{refs.SEEN}:heads/main") == commit
    later = town.push(**{"docs/index.md": "hello"})
    town.turns(one)
    assert town.started() == sorted([f"docs {later}", f"test {later}", f"test {commit}"])


@pytest.mark.parametrize("when", ["before", "behind", "lost"])
def test_a_controller_that_dies_around_its_push_starts_nothing_twice_and_forgets_nothing(
    tmp_path: Path, when: str
) -> None:
    town = Town(tmp_path)
    town.turns(town.controller(), times=2)
    one = town.controller(lambda ledger: Dying(ledger, when))
    commit = town.push()
    try:
        town.turns(one)
    except Killed:
        one = town.controller()
    town.turns(one, times=6)
    assert town.started() == [f"test {commit}"]


def test_half_of_a_push_is_made_whole_without_a_second_run(tmp_path: Path) -> None:
    town = Town(tmp_path)
    town.turns(town.controller(), times=2)
    before = sh(town.state, "rev-parse", refs.SEEN)
    commit = town.push()
    town.turns(town.controller())
    sh(town.state, "update-ref", refs.SEEN, before)
    town.turns(town.controller())
    assert town.started() == [f"test {commit}"]
    assert sh(town.state, "show", f"{refs.SEEN}:heads/main") == commit


BOTH = "workflows: [{name: test, commands: [x], on: push}, {name: more, commands: [x], on: push}]\n"


def _delete(town: Town, workflow: str) -> None:
    """As a server leaves it that dies in the middle of a push: the memory moves first, and the run isn't there."""
    for run in town.runs():
        if run.spec.workflow == workflow:
            sh(town.state, "update-ref", "-d", refs.run_branch(run.name))
            sh(town.state, "update-ref", "-d", refs.snapshot(run.key))


@pytest.mark.parametrize("lost", [("test",), ("test", "more")])
def test_a_run_that_a_dying_server_lost_is_made_again_and_no_other(tmp_path: Path, lost: tuple[str, ...]) -> None:
    town = Town(tmp_path)
    town.turns(town.controller(), times=2)
    commit = town.push(BOTH)
    one = town.controller(lambda ledger: Dying(ledger, "behind"))
    with pytest.raises(Killed):
        town.turns(one)
    names = {run.name for run in town.runs()}
    for workflow in lost:
        _delete(town, workflow)
    town.turns(town.controller())
    assert town.started() == [f"more {commit}", f"test {commit}"]
    assert {run.name for run in town.runs()} == names
    assert "made" not in sh(town.state, "ls-tree", "--name-only", refs.SEEN), "that they are there is remembered"


def test_what_moved_on_before_a_lost_run_was_made_again_starts_for_where_it_is(tmp_path: Path) -> None:
    town = Town(tmp_path)
    town.turns(town.controller(), times=2)
    first = town.push(BOTH)
    with pytest.raises(Killed):
        town.turns(town.controller(lambda ledger: Dying(ledger, "behind")))
    _delete(town, "test")
    second = town.push(BOTH)
    town.turns(town.controller())
    assert town.started() == sorted([f"more {first}", f"more {second}", f"test {second}"])


def test_what_can_not_be_written_down_now_keeps_no_controller_busy(tmp_path: Path) -> None:
    town = Town(tmp_path)
    one = town.controller()
    town.turns(one, times=2)
    town.push(BOTH)
    while not town.runs():
        town.turns(one, times=1)
    one.step(moment(town.time + 1.0))
    one.triggers.failed(Unavailable("the remote is away"), moment(town.time + 1.0))
    due = one.step(moment(town.time + 1.5))
    assert "made" in sh(town.state, "ls-tree", "--name-only", refs.SEEN), "it was due, and not done"
    assert due is not None
    assert due > 0.0
    town.turns(one)
    assert "made" not in sh(town.state, "ls-tree", "--name-only", refs.SEEN)


def test_a_run_that_was_seen_and_is_deleted_by_hand_does_not_come_back(tmp_path: Path) -> None:
    town = Town(tmp_path)
    one = town.controller()
    town.turns(one, times=2)
    commit = town.push(BOTH)
    town.turns(one)
    _delete(town, "test")
    town.turns(one, town.controller(), times=6)
    assert town.started() == [f"more {commit}"]


def test_two_controllers_start_one_run(tmp_path: Path) -> None:
    town = Town(tmp_path)
    one, other = town.controller(), town.controller()
    town.turns(one, other)
    commits = []
    for _ in range(2):
        commits.append(town.push())
        town.turns(one, other, times=5)
    assert town.started() == sorted(f"test {commit}" for commit in commits)


def test_of_two_that_look_at_the_same_memory_only_one_wins(tmp_path: Path) -> None:
    town = Town(tmp_path)
    others: list[Controller] = []

    class Racing(Dying):
        def commit(self, changes: Sequence[Change], seen: Observation, *, atomic: bool) -> Pushed:
            if others and any(change.ref == refs.SEEN for change in changes):
                town.turns(others.pop(), times=1)
            return super().commit(changes, seen, atomic=atomic)

    one, other = town.controller(Racing), town.controller()
    town.turns(one, other)
    commit = town.push()
    others.append(other)
    town.turns(one)
    assert others == []
    assert town.started() == [f"test {commit}"]


def test_a_name_that_another_run_has_gets_a_number(tmp_path: Path) -> None:
    town = Town(tmp_path)
    one = town.controller()
    town.turns(one)
    town.push()
    town.turns(one)
    (run,) = town.runs()
    sh(town.state, "update-ref", refs.SEEN, f"{refs.SEEN}~1")
    # The same event against the same memory, but its run's branch holds what can't be read.
    sh(town.state, "update-ref", refs.run_branch(run.name), sh(town.state, "rev-parse", "main"))
    town.turns(town.controller())
    assert set(GitLedger(Cache(tmp_path / "again", str(town.state))).observe().runs) == {
        run.name,
        f"{run.name}-2",
    }


def test_what_is_refused_three_times_is_given_up_and_said(tmp_path: Path) -> None:
    town = Town(tmp_path)
    one = town.controller()
    town.turns(one)
    hook(town.state, "update", 'case "$1" in refs/heads/dstack/runs/*) echo "no runs today" >&2; exit 1;; esac')
    commit = town.push()
    town.turns(one, times=16)
    assert town.runs() == []
    seen = GitLedger(Cache(tmp_path / "again", str(town.state))).observe().seen
    assert seen
    assert seen.marks["heads/main"] == commit
    assert seen.troubles["heads/main"].refusals == 3
    assert seen.troubles["heads/main"].workflows == ("test",)
    assert "no runs today" in seen.troubles["heads/main"].reason


def test_a_state_remote_apart_gets_the_files_and_no_history(tmp_path: Path) -> None:
    town = Town(tmp_path, apart=True)
    one = town.controller()
    town.turns(one)
    commit = town.push()
    town.turns(one)
    (run,) = town.runs()
    assert run.spec.code.commit == commit
    snapshot = sh(town.state, "rev-parse", refs.snapshot(run.key))
    assert run.spec.code.snapshot == snapshot != commit
    assert sh(town.state, "rev-parse", f"{snapshot}^{{tree}}") == sh(town.tree, "rev-parse", f"{commit}^{{tree}}")
    assert sh(town.state, "log", "--format=%H", snapshot) == snapshot


@pytest.mark.parametrize("filters", ["true", "false"])
def test_over_http_a_state_remote_apart_gets_all_files_of_the_run_and_no_others_come(
    tmp_path: Path, filters: str
) -> None:
    town = Town(tmp_path, apart=True)
    sh(town.code, "config", "uploadpack.allowFilter", filters)
    town.push(**{"data.bin": "old" * 10_000})
    server = HttpServer(tmp_path)
    with running(server):
        town.url = server.url("code")
        one = town.controller()
        town.turns(one)
        commit = town.push(**{"data.bin": "new" * 10_000})
        town.turns(one)
    (run,) = town.runs()
    snapshot = sh(town.state, "rev-parse", refs.snapshot(run.key))
    assert sh(town.state, "rev-parse", f"{snapshot}^{{tree}}") == sh(town.tree, "rev-parse", f"{commit}^{{tree}}")
    assert sh(town.state, "cat-file", "-p", f"{snapshot}:data.bin") == "new" * 10_000
    old = sh(town.tree, "rev-parse", "HEAD~:data.bin")
    missing = sh(tmp_path / "place-1/code", "rev-list", "--objects", "--missing=print", "--all").splitlines()
    assert (f"?{old}" in missing) is (filters == "true"), "what was before stays where it is"


def test_the_first_look_at_pull_requests_records_them_and_the_next_ones_start_runs(tmp_path: Path) -> None:
    town = Town(tmp_path)
    one = town.controller()
    town.push(PULL, "refs/pull/1/head")
    town.turns(one)
    town.push(PULL)
    town.turns(one, times=6)
    assert town.started() == []
    commit = town.push(PULL, "refs/pull/2/head")
    town.turns(one)
    assert town.started() == [f"check {commit}"]
    (run,) = town.runs()
    assert run.spec.trigger
    assert (run.spec.trigger.pull, run.spec.trigger.fork) == (2, True)


def test_the_first_pull_request_of_all_starts_a_run_where_it_came_after_the_first_look(tmp_path: Path) -> None:
    town = Town(tmp_path)
    one = town.controller()
    town.push(PULL)
    town.turns(one, times=6)
    commit = town.push(PULL, "refs/pull/1/head")
    town.turns(one, times=6)
    assert town.started() == [f"check {commit}"]
    town.turns(town.controller(), times=6)
    assert town.started() == [f"check {commit}"], "another controller remembers it"


def test_over_http_without_its_files_polling_alone_does_it(tmp_path: Path) -> None:
    town = Town(tmp_path)
    sh(town.code, "config", "uploadpack.allowFilter", "true")
    server = HttpServer(tmp_path)
    with running(server):
        town.url = server.url("code")
        one = town.controller()
        town.turns(one)
        commit = town.push(**{"large.bin": "x" * 10_000})
        town.turns(one)
    assert town.started() == [f"test {commit}"]
    fetched = sh(tmp_path / "place-1/code", "rev-list", "--objects", "--missing=print", commit)
    assert "?" in fetched, "the files stay at the remote"


def test_a_pull_request_that_is_hidden_from_who_pushes_comes_whole(tmp_path: Path) -> None:
    town = Town(tmp_path)
    sh(town.code, "config", "uploadpack.allowFilter", "true")
    town.push(PULL)
    town.push(PULL, "refs/pull/1/head")
    server = HttpServer(tmp_path)
    with running(server):
        town.url = server.url("code")
        one = town.controller()
        town.turns(one)
        commit = town.push(PULL, "refs/pull/2/head", **{"more.txt": "more"})
        sh(town.code, "config", "receive.hideRefs", "refs/pull")
        town.turns(one)
    assert town.started() == [f"check {commit}"]


def test_code_that_is_away_holds_up_nothing(tmp_path: Path) -> None:
    town = Town(tmp_path, apart=True)
    one = town.controller()
    town.turns(one)
    (tmp_path / "code").rename(tmp_path / "gone")
    town.turns(one)
    assert one.failure is None
    (tmp_path / "gone").rename(tmp_path / "code")
    commit = town.push()
    town.turns(one)
    assert town.started() == [f"test {commit}"]


def test_a_branch_whose_files_are_gone_from_the_remote_keeps_no_other_from_starting_runs(tmp_path: Path) -> None:
    town = Town(tmp_path)
    one = town.controller()
    town.turns(one)
    broken = town.push(PUSH.replace("[x]", "[damaged]"), "damaged")
    blob = sh(town.code, "rev-parse", f"{broken}:.dstack/workflows.yaml")
    (town.code / "objects" / blob[:2] / blob[2:]).unlink()
    good = town.push()
    town.turns(one, times=8)
    assert town.started() == [f"test {good}"]
    seen = read_seen(
        folder.open_folder(tmp_path / "look", (town.state / "objects",)), sh(town.state, "rev-parse", refs.SEEN)
    )
    assert "did not come from the code remote" in seen.troubles["heads/damaged"].reason


def test_a_look_at_an_idle_folder_starts_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    town = Town(tmp_path)
    one = town.controller()
    town.turns(one)
    begun: list[tuple[object, ...]] = []
    plain = Running.__init__

    def counted(self: Running, *args: object) -> None:
        begun.append(args)
        plain(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(git.Running, "__init__", counted)
    town.turns(one, times=20)
    assert begun == []


def test_status_says_what_started_a_run_and_what_was_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    town = Town(tmp_path)
    one = town.controller()
    town.turns(one)
    commit = town.push()
    town.turns(one)
    broken = town.push("workflows: [{name: test, commands: [x], on: never}]", "topic")
    town.turns(one)
    desk = Desk(folder=town.tree, remote=town.state, capture=capfd)
    shown = desk.dstack("status")
    assert f"push main {commit[:7]}" in shown.out
    assert f"Not started by heads/topic at {broken[:7]}" in shown.err
    (line,) = desk.dstack("status", "--json").json
    assert (line["via"], line["trigger"]["commit"]) == ("push", commit)


def test_a_memory_that_is_followed_is_the_same_as_one_that_is_read_whole(tmp_path: Path) -> None:
    objects = Cache(tmp_path / "cache", str(bare(tmp_path / "remote"))).objects
    random, reader, tip, there = Random(1), SeenReader(), None, dict[str, str]()
    paths = ["heads/a", "heads/a/b", "heads/a/b/c", "tags/v1", "pulls/1", "heads/topic/x", "heads/topic/y"]
    for number in range(60):
        marks: dict[str, str | None] = {path: None for path in random.sample(paths, 3) if path in there}
        free = [one for one in random.sample(paths, 3) if not any(_clash(one, other) for other in {**there, **marks})]
        marks |= dict.fromkeys(free[:1], f"{number:040x}")
        about = random.choice(paths)
        troubles = {about: Trouble.of(f"{number:040x}", "why") if random.random() < 0.5 else None}
        tip = write_seen(objects, tip, Move(marks=marks, troubles=troubles if "/b" not in about else {}))
        there = {path: mark for path, mark in {**there, **marks}.items() if mark}
        found = reader.read(objects, tip)
        assert found == read_seen(objects, tip)
        assert found.marks == there


def _clash(one: str, other: str) -> bool:
    return (one != other and f"{one}/".startswith(f"{other}/")) or (f"{other}/".startswith(f"{one}/") and one != other)
