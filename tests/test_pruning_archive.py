"""The archive as `dstack prune` changes it: runs that are freed, and runs that were never there."""

from pathlib import Path

import msgspec
import pytest

from dstack.ledger import mentions
from dstack.ledger.archive import Archive, bring
from dstack.ledger.objects import FILE, Entry
from dstack.model import refs
from dstack.model.observation import Outcome
from dstack.model.refs import RunKey
from tests.repositories import Place, sh
from tests.test_archive import apart, due, finish, here

__all__ = ["here"]


def remote_of(here: Place) -> Path:
    return here.code.top.parent / "remote.git"


def archived(here: Place, *names: str) -> Archive:
    """The archive with these runs, which were archived one by one."""
    other = apart(here)
    for name in names:
        finish(here, name)
        other = apart(here)
        assert other.add(due(here.ledger)).won
    other.look()
    return other


def everything(archive: Archive) -> list[RunKey]:
    archive.look()
    return list(archive.runs())


def test_a_run_is_marked_as_freed_and_read_as_before(here: Place) -> None:
    other = archived(here, "fast-fox-1", "fast-fox-2")
    key = next(key for key in other.runs() if key.name == "fast-fox-1")
    run = other.find(key)
    assert run
    assert other.change([msgspec.structs.replace(run, freed=True)]).won
    again = apart(here)
    again.look()
    assert {key.name: again.read(oid).freed for key, oid in again.runs().items()} == {
        "fast-fox-1": True,
        "fast-fox-2": False,
    }
    bring(here.cache, run)


def test_a_purged_run_leaves_nothing_behind_and_the_others_are_whole(here: Place) -> None:
    other = archived(here, "fast-fox-1", "fast-fox-2", "fast-fox-3")
    runs = {key.name: other.read(oid) for key, oid in other.runs().items()}
    gone = runs["fast-fox-2"]
    assert other.remove([gone.key]).won
    remote = remote_of(here)
    sh(remote, "-c", "gc.pruneExpire=now", "gc", "--quiet")
    there = sh(remote, "cat-file", "--batch-all-objects", "--batch-check")
    for oid in (gone.tip, *gone.notes.values(), gone.snapshot):
        assert oid
        assert oid not in there
    for run in (runs["fast-fox-1"], runs["fast-fox-3"]):
        assert all(oid in there for oid in (run.tip, *run.notes.values(), run.snapshot) if oid)
    sh(remote, "fsck", "--connectivity-only")
    again = apart(here)
    again.look()
    assert sorted(key.name for key in again.runs()) == ["fast-fox-1", "fast-fox-3"]
    bring(here.cache, runs["fast-fox-3"])
    finish(here, "fast-fox-4")
    assert apart(here).add(due(here.ledger)).won  # whoever knew the old chain goes on with the new one
    assert again.remove(everything(again)).won
    assert refs.ARCHIVE not in here.cache.remote_refs([refs.ARCHIVE])


@pytest.mark.parametrize("here", [True], ids=["away"], indirect=True)
def test_who_archives_while_a_run_is_purged_makes_it_lose_and_it_is_done_again(here: Place) -> None:
    other = archived(here, "fast-fox-1", "fast-fox-2")
    key = next(key for key in other.runs() if key.name == "fast-fox-1")
    finish(here, "fast-fox-3")
    controller, real = apart(here), other.cache.push

    def late(*args: object, **options: object) -> object:
        other.cache.push = real  # type: ignore[method-assign]
        assert controller.add(due(here.ledger)).won
        return real(*args, **options)  # type: ignore[arg-type]

    other.cache.push = late  # type: ignore[assignment,method-assign]
    assert Outcome.LOST in other.remove([key]).outcomes.values()
    assert other.remove([key]).won
    controller.look()
    assert sorted(key.name for key in controller.runs()) == ["fast-fox-2", "fast-fox-3"]


@pytest.mark.parametrize("here", [False], ids=["here"], indirect=True)
def test_every_digest_of_runs_notes_and_tags_counts_as_mentioned(here: Place) -> None:
    finish(here, "fast-fox-1")
    seen = here.ledger.observe()
    digest = "ab" * 32
    objects = here.cache.objects
    blob = objects.write_blob(b'{"event":"of a later version","what":"%s"}\n' % digest.encode())

    commit = objects.write_commit(objects.write_tree({b"x": Entry(FILE, blob)}), [], "note")
    note = next(ref for ref in seen.refs if refs.parse_note(ref))
    assert digest not in mentions.digests(objects, seen.refs)
    assert digest in mentions.digests(objects, {**seen.refs, note: commit})
