"""The archive: which runs leave, the push that takes them there, and how they are read again."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from dstack.ledger.archive import Archive, bring
from dstack.ledger.cache import Cache
from dstack.ledger.codediff import bring as bring_code
from dstack.ledger.gitledger import GitLedger
from dstack.ledger.submit import create_repository
from dstack.model import archive, refs
from dstack.model import job as jobs
from dstack.model.archive import ArchivedRun
from dstack.model.errors import Invalid
from dstack.model.events import Planned, RunFinished, Tagged
from dstack.model.job import Job, Reason
from dstack.model.observation import AppendNotes, Outcome, SetTag, SetWanted
from dstack.model.refs import RunKey
from dstack.model.retention import DEFAULT, NEVER, Retention, parse_retention, retention_text
from dstack.model.runspec import Desired, RunSpec, Wanted
from dstack.model.settings import parse_settings
from dstack.model.status import Status
from dstack.model.views import Viewer
from dstack.model.world import World
from tests.repositories import NOW, Place, bare, place, record_of, sh, work

LATER = NOW + timedelta(days=15)


@pytest.fixture(params=[False, True], ids=["here", "away"])
def here(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    top = work(tmp_path / "code")
    remote = bare(tmp_path / "remote.git")
    sh(remote, "config", "uploadpack.allowFilter", "true")
    sh(top, "remote", "add", "origin", str(remote))
    sh(top, "push", "--quiet", "origin", "main")
    made = place(top, tmp_path / "cache", fetching=bool(request.param))
    create_repository(made.cache, "repository-1", b"")
    return made


def apart(here: Place) -> Archive:
    """The archive as a controller has it, which borrows nothing from the user's repository."""
    cache = Cache(here.cache.path.with_name("controller"), here.cache.url)
    cache.poll()
    return Archive(cache)


def finish(here: Place, name: str) -> RunKey:
    """Submit a run with files of its own, and end it."""
    (here.code.top / "train.py").write_text(f"print({name!r})\n")
    made = here.submit(name)
    job = Job(root=made.root, workflow="hello", commands=("true",))
    oid = jobs.job_oid(job)
    ended = RunFinished(seq=2, at=NOW, generation=1, status=Status.DONE, reason=Reason.OK, message="DONE")
    planned = Planned(seq=1, at=NOW, generation=1, jobs=(oid,), store="file:///s", message="planned")
    notes = AppendNotes(
        key=made.key, writer="controller", events={made.root: (planned, ended)}, jobs={oid: jobs.to_bytes(job)}
    )
    assert here.ledger.commit([notes], here.ledger.observe(), atomic=True).won
    return made.key


def world_of(ledger: GitLedger) -> World:
    seen = ledger.observe()
    return World(repository="repository-1", store="", runs=Viewer(ledger.job).views(seen), entropy="e")


def due(ledger: GitLedger, retention: Retention = DEFAULT) -> list[ArchivedRun]:
    return list(archive.leaving(world_of(ledger), ledger.observe(), retention, LATER))


@pytest.mark.parametrize("text", ["14d, 200 runs", "30d", "50 runs", "never", "1h30m"])
def test_a_retention_round_trips(text: str) -> None:
    assert retention_text(parse_retention(text)) == text
    assert parse_settings(f"retention: {text}".encode()).kept == parse_retention(text)


@pytest.mark.parametrize("text", ["", "14", "0 runs", "-3 runs", "9999999 runs", "3d, 4d", "3 runs, 4 runs", "³ runs"])
def test_what_is_no_retention_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(Invalid, match="14d, 200 runs"):
        parse_settings(f"retention: '{text}'".encode())


def test_runs_leave_by_age_or_number_and_stay_while_anything_is_open(here: Place) -> None:
    finish(here, "old-fox-1")
    here.submit("new-fox-2")
    assert [run.key.name for run in due(here.ledger)] == ["old-fox-1"]
    assert due(here.ledger, NEVER) == []
    assert due(here.ledger, parse_retention("1 runs")) == []
    finish(here, "old-fox-3")
    assert len(due(here.ledger, parse_retention("1 run"))) == 1
    assert len(due(here.ledger, parse_retention("20d"))) == 0
    resumed = SetWanted(run="old-fox-1", wanted=resumed_at(here, "old-fox-1"))
    assert here.ledger.commit([resumed], here.ledger.observe(), atomic=True).won
    assert [run.key.name for run in due(here.ledger)] == ["old-fox-3"]


def resumed_at(here: Place, name: str) -> Wanted:
    root = record_of(here.ledger.observe(), name).root
    return Wanted(root=root, desired=Desired.RUN, jobs={}, generation=2)


def test_an_archived_run_leaves_one_ref_and_is_read_again_whole(here: Place, tmp_path: Path) -> None:
    first, second = finish(here, "fast-fox-1"), finish(here, "fast-fox-2")
    runs, other = due(here.ledger), apart(here)
    assert other.add(runs[:1]).won
    assert other.add(runs[1:]).won
    remote = tmp_path / "remote.git"
    left = sh(remote, "for-each-ref", "--format=%(refname)").splitlines()
    assert left == ["refs/dstack/archive", "refs/dstack/id", "refs/heads/dstack/config", "refs/heads/main"]
    sh(remote, "-c", "gc.pruneExpire=now", "gc", "--quiet")
    sh(remote, "fsck", "--connectivity-only")
    reader = apart(Place(here.code, Cache(tmp_path / "x/cache", here.cache.url), here.ledger))
    assert reader.look() == sh(remote, "rev-parse", refs.ARCHIVE)
    assert set(reader.runs()) == {first, second}
    found = reader.find(first)
    assert found is not None
    assert (found.line.status, found.line.run, found.folder) == (Status.DONE, "fast-fox-1", "2026/11/22")
    assert sh(remote, "show", f"{found.snapshot}:train.py") == "print('fast-fox-1')"
    shown = sh(remote, "show", f"{refs.ARCHIVE}:{found.folder}/{first}.json")
    assert archive.from_bytes(shown.encode()) == found
    cache = Cache(tmp_path / "y", here.cache.url)
    bring(cache, found)
    assert all(cache.objects.has(oid) for oid in found.refs.values())
    code = Cache(tmp_path / "z", here.cache.url)
    bring_code(code, here.code, first, found.snapshot or "", archived=True)
    assert code.objects.has(found.snapshot or "")


def test_the_archive_leaves_the_cache_as_it_is_that_it_shares_with_a_controller(tmp_path: Path) -> None:
    remote, code = bare(tmp_path / "remote.git"), bare(tmp_path / "code.git")
    cache = Cache(tmp_path / "cache", str(remote), lenders=(code / "objects",))
    create_repository(cache, "repository-1", b"")
    (tmp_path / "cache" / "left").touch()
    Archive(Cache(tmp_path / "cache", str(remote), lenders=(code / "objects",))).look()
    assert (tmp_path / "cache" / "left").exists(), "it was not made anew"


def test_of_two_controllers_one_archives_and_the_other_changes_nothing(here: Place) -> None:
    finish(here, "fast-fox-1")
    runs = due(here.ledger)
    assert apart(here).add(runs).won
    tip = apart(here).look()
    lost = apart(here).add(runs)
    assert Outcome.LOST in lost.outcomes.values()
    assert apart(here).look() == tip


def test_what_has_changed_since_keeps_the_run(here: Place) -> None:
    finish(here, "fast-fox-1")
    runs = due(here.ledger)
    resumed = SetWanted(run="fast-fox-1", wanted=resumed_at(here, "fast-fox-1"))
    assert here.ledger.commit([resumed], here.ledger.observe(), atomic=True).won
    before = here.ledger.observe().refs
    assert not apart(here).add(runs).won
    assert here.ledger.observe().refs == before
    assert apart(here).look() is None


def test_a_tag_goes_on_naming_an_archived_run(here: Place, tmp_path: Path) -> None:
    key = finish(here, "fast-fox-1")
    (run,) = due(here.ledger)
    tag = SetTag(tag="latest", key=key, root=run.line.root)
    assert here.ledger.commit([tag], here.ledger.observe(), atomic=True).won
    assert apart(here).add([run]).won
    sh(tmp_path / "remote.git", "show", "--quiet", "refs/tags/dstack/latest")


def test_a_server_that_can_not_leave_files_out_sends_them(tmp_path: Path) -> None:
    top = work(tmp_path / "code")
    sh(top, "remote", "add", "origin", str(bare(tmp_path / "remote.git")))
    here = place(top, tmp_path / "cache", fetching=True)
    create_repository(here.cache, "repository-1", b"")
    finish(here, "fast-fox-1")
    assert apart(here).add(due(here.ledger)).won


def test_what_is_written_twice_is_there_once(here: Place, tmp_path: Path) -> None:
    """A server that dies amid the push has the archive, and the run's refs as well."""
    key = finish(here, "fast-fox-1")
    remote = tmp_path / "remote.git"
    kept = dict(line.split() for line in sh(remote, "for-each-ref", "--format=%(refname) %(objectname)").splitlines())
    assert apart(here).add(due(here.ledger)).won
    for ref, oid in kept.items():
        sh(remote, "update-ref", ref, oid)
    assert apart(here).add(due(here.ledger)).won
    reader = apart(here)
    reader.look()
    assert set(reader.runs()) == {key}


def test_a_push_takes_so_many_runs_and_no_more(here: Place) -> None:
    finish(here, "fast-fox-1")
    (run,) = due(here.ledger)
    assert len(archive.bounded([run] * 300)) == archive.MOST_RUNS
    wide = replace_notes(run, 1999)
    assert len(archive.bounded([wide, wide])) == 1


def replace_notes(run: ArchivedRun, count: int) -> ArchivedRun:
    return msgspec.structs.replace(run, notes={f"runner-{number}": run.tip for number in range(count)})


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"version": 99}'])
def test_a_summary_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        archive.from_bytes(data)


def test_a_run_that_waits_for_its_tag_stays(here: Place) -> None:
    finish(here, "fast-fox-1")
    world = world_of(here.ledger)
    view = world.runs[0]
    assert archive.may_leave(view, world, here.ledger.observe())
    asked = replace(view, spec=with_tag(view.spec))
    assert not archive.may_leave(asked, world, here.ledger.observe())


def test_a_view_knows_that_the_tag_was_given(here: Place) -> None:
    key = finish(here, "fast-fox-1")
    view = world_of(here.ledger).runs[0]
    given = Tagged(seq=3, at=NOW, generation=1, tag="latest", message="tagged")
    notes = AppendNotes(key=key, writer="controller", events={view.root: (given,)})
    assert here.ledger.commit([notes], here.ledger.observe(), atomic=True).won
    world = world_of(here.ledger)
    view = world.runs[0]
    assert archive.may_leave(replace(view, spec=with_tag(view.spec)), world, here.ledger.observe())


def with_tag(spec: RunSpec) -> RunSpec:
    return msgspec.structs.replace(spec, options=msgspec.structs.replace(spec.options, tag="latest"))
