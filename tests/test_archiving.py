"""The controller archives beside its turns: it backs off by itself, and what it archived may still be reused."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from controller.archiving import Archiving
from dstack.ledger.archive import Archive
from dstack.ledger.cache import Cache
from dstack.ledger.gitledger import GitLedger
from dstack.ledger.submit import create_repository
from dstack.model import archive, refs
from dstack.model.errors import Unavailable
from dstack.model.retention import DEFAULT, NEVER
from dstack.model.reuse import Hint
from dstack.model.world import Moment
from tests.repositories import NOW, Place, bare, hook, place, sh, work
from tests.test_archive import finish, world_of

LATER = NOW + timedelta(days=20)


@pytest.fixture
def here(tmp_path: Path) -> Place:
    top = work(tmp_path / "code")
    sh(top, "remote", "add", "origin", str(bare(tmp_path / "remote.git")))
    made = place(top, tmp_path / "cache")
    create_repository(made.cache, "repository-1", b"")
    return made


def opened(here: Place) -> Archive:
    return Archive(Cache(here.cache.path.with_name("controller"), here.cache.url))


class Told:
    count = 0

    def __call__(self) -> None:
        self.count += 1


def archiving(here: Place, told: Told | None = None) -> Archiving:
    """One that does at once what it begins."""
    return Archiving(
        open_archive=lambda: opened(here), jitter=lambda: 0.5, told=told or Told(), start=lambda work: work()
    )


def pushes(one: Archiving, ledger: GitLedger, ticks: float) -> bool:
    return one.turn(world_of(ledger), ledger.observe(), DEFAULT, Moment(wall=LATER, ticks=ticks))


def test_it_archives_once_a_minute_what_is_due(here: Place, caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    one = archiving(here, told)
    finish(here, "fast-fox-1")
    assert not any(pushes(one, here.ledger, ticks) for ticks in (0.0, 1.0, 50.0))
    with caplog.at_level("INFO"):
        assert pushes(one, here.ledger, 62.0)
    assert ("archived fast-fox-1" in caplog.text, told.count) == (True, 1)
    assert here.ledger.observe().runs == {}
    finish(here, "fast-fox-2")
    assert not pushes(one, here.ledger, 63.0)
    assert not pushes(one, here.ledger, 100.0)
    assert pushes(one, here.ledger, 124.0)


def test_nothing_leaves_where_all_is_kept(here: Place) -> None:
    one = archiving(here)
    finish(here, "fast-fox-1")
    for ticks in (0.0, 1.0, 70.0, 140.0):
        assert not one.turn(world_of(here.ledger), here.ledger.observe(), NEVER, Moment(wall=LATER, ticks=ticks))
    assert "fast-fox-1" in here.ledger.observe().runs


def test_a_remote_that_refuses_is_asked_ever_more_rarely(
    here: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finish(here, "fast-fox-1")
    hook(tmp_path / "remote.git", "pre-receive", "echo 'no archives here' >&2; exit 1")
    one = archiving(here)
    tried = [ticks for ticks in range(0, 3000, 10) if pushes(one, here.ledger, ticks)]
    assert 3 <= len(tried) <= 8
    assert tried[1] - tried[0] < tried[-1] - tried[-2]
    assert caplog.text.count("no archives here") == 1
    assert "fast-fox-1" in here.ledger.observe().runs


def test_trouble_with_the_archive_never_gets_out(here: Place, caplog: pytest.LogCaptureFixture) -> None:
    def away() -> Archive:
        msg = "the state remote is away"
        raise Unavailable(msg, retry_after=900)

    finish(here, "fast-fox-1")
    one = Archiving(open_archive=away, jitter=lambda: 0.5, told=Told(), start=lambda work: work())
    tried = [ticks for ticks in range(0, 2000, 10) if pushes(one, here.ledger, ticks)]
    assert len(tried) == 2
    assert "is away; trying again later" in caplog.text


def test_only_one_push_is_on_its_way(here: Place) -> None:
    finish(here, "fast-fox-1")
    works: list[Callable[[], None]] = []
    one = Archiving(open_archive=lambda: opened(here), jitter=lambda: 0.5, told=Told(), start=works.append)
    assert not pushes(one, here.ledger, 0.0)
    works.pop()()
    assert [pushes(one, here.ledger, ticks) for ticks in (1.0, 70.0, 500.0)] == [False, True, False]
    works.pop()()
    assert here.ledger.observe().runs == {}


def test_a_hint_about_an_archived_run_is_checked_against_its_summary(here: Place) -> None:
    key = finish(here, "fast-fox-1")
    (run,) = archive.leaving(world_of(here.ledger), here.ledger.observe(), DEFAULT, LATER)
    job = run.line.jobs[0]
    done = archive.from_bytes(archive.to_bytes(run).replace(b'"tip"', b'"keys":{"%s":"k"},"tip"' % job.job.encode()))
    assert opened(here).add([done]).won
    one = archiving(here)
    assert one.answer("k", Hint(run=str(key), job=job.job)) is None
    pushes(one, here.ledger, 0.0)
    assert one.answer("other", Hint(run=str(key), job=job.job)) is None
    assert one.answer("k", Hint(run="x", job=job.job)) is None
    found = one.answer("k", Hint(run=str(key), job=job.job))
    assert found is not None
    assert (found.run, found.job) == (str(key), job.job)
    assert refs.ARCHIVE in sh(Path(here.cache.url), "for-each-ref")
