"""A runner may die anywhere: after a restart every attempt ends once, with its whole log."""

from pathlib import Path

import pytest

from dstack.model.job import Job, Reason
from dstack.model.pool import Phase
from dstack.model.runspec import Desired
from dstack.model.status import Status
from runner.executor import Exit
from runner.facts import Given
from tests.agents import Killed, Office
from tests.duties import a_job, given_job

OK = Exit(exit_code=0)
# How many moments there are in the life of two jobs before or after which something is written outside.
MOMENTS = 26


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def quick(name: str = "train") -> Given:
    """A job that ends at once (see `Office.executor.ends`)."""
    return given_job(a_job(name))


def finished_by_another_start(office: Office, jobs: list[Given]) -> None:
    office.fuse.left = None
    office.new_agent()
    office.until(lambda: all("ended" in office.told(one) for one in jobs), seconds=300.0)
    office.settle(2.0)


@pytest.mark.parametrize("last", range(MOMENTS))
def test_killed_at_any_write_ends_once_with_its_whole_log(tmp_path: Path, last: int) -> None:
    """Each number is another moment of death: before or after each thing that is written outside."""
    office = Office(tmp_path)
    jobs = [quick("train"), quick("other")]
    office.executor.ends = {"train": OK, "other": Exit(exit_code=3)}
    office.fuse.left = last
    died = False
    try:
        office.settle(0.1)
        office.assign(*jobs)
        office.settle(3.0)
    except Killed:
        died = True
    office.assign(*(one for one in jobs if one.attempt.key not in office.assigned))
    finished_by_another_start(office, jobs)
    assert died, "there are fewer moments than are tried"
    for one, status in zip(jobs, (Status.DONE, Status.FAILED), strict=True):
        assert office.told(one).count("started") == 1
        assert office.claim(one).status is status
        assert office.claim(one).manifest is not None
        assert office.log(one) == (f"hello from {one.job.workflow}\n" if isinstance(one.job, Job) else "", True)
    assert len(office.executor.started) == 2, "nothing was executed twice"
    assert list((tmp_path / "attempts").iterdir()) == []


def test_what_runs_goes_on_over_a_restart(office: Office) -> None:
    one = quick()
    office.assign(one)
    office.settle()
    office.new_agent()
    assert office.agent.held[one.attempt.key].phase is Phase.RUNNING
    assert office.trees.claimed == [office.executor.launches[one.attempt.key].tree]
    office.ledger.away = True
    office.executor.end(one.attempt.key)
    office.settle(5.0)
    assert office.agent.held[one.attempt.key].phase is Phase.ENDED
    office.ledger.away = False
    office.settle(60.0)
    assert office.told(one) == ["started", "ended"]
    assert office.executor.started == [one.attempt.key]


def test_what_was_stopped_before_the_restart_is_stopped(office: Office) -> None:
    one = quick()
    office.assign(one)
    office.settle()
    office.want(one.attempt.key, Desired.STOP)
    office.settle(0.05)
    office.executor.end(one.attempt.key, 143)
    office.new_agent()
    office.settle()
    assert office.claim(one).status is Status.STOPPED


def test_a_timeout_goes_on_over_a_restart(office: Office) -> None:
    one = given_job(a_job(timeout=60.0))
    office.assign(one)
    office.settle()
    office.ticks += 40.0
    office.new_agent()
    office.settle(10.0)
    assert office.executor.signals == []
    office.settle(30.0)
    assert office.claim(one).reason is Reason.TIMEOUT


def test_what_vanished_is_lost(office: Office) -> None:
    one = quick()
    office.assign(one)
    office.settle()
    office.executor.launches.clear()
    office.new_agent()
    office.settle()
    assert (office.claim(one).status, office.claim(one).reason) == (Status.FAILED, Reason.LOST)


@pytest.mark.parametrize("content", [b"", b"{", b'{"_default": [1]}', b'{"_default": {"1": {"key": 3}}}', b"[]"])
def test_a_damaged_journal_is_no_disaster(office: Office, content: bytes) -> None:
    one = quick()
    office.assign(one)
    office.settle()
    (office.folder / "journal.json").write_bytes(content)
    office.new_agent()
    office.settle()
    office.executor.end(one.attempt.key)
    office.settle()
    assert office.told(one) == ["started", "ended"]
    assert office.executor.started == [one.attempt.key], "what runs is found by its executor"


def test_leftovers_that_nobody_wants_are_removed(office: Office) -> None:
    one = quick()
    office.assign(one)
    office.settle()
    office.unassign(one.attempt.key)
    (office.folder / "journal.json").unlink()
    (office.folder / "attempts" / "0123456789ab.3").mkdir()
    office.new_agent()
    office.settle()
    assert office.executor.launches == {}
    assert list((office.folder / "attempts").iterdir()) == []
    assert office.told(one) == ["started"]


def test_orphans_are_removed_when_they_were_nobodys_twice(office: Office) -> None:
    one = quick()
    office.assign(one)
    office.settle()
    orphan, other = office.folder / "attempts" / "0123456789ab.3", office.folder / "attempts" / "0123456789ab.4"
    works, held = office.agent.works, office.agent.held
    orphan.mkdir()
    works.leftovers.remove_orphans(held)
    assert orphan.exists()
    other.mkdir()
    works.leftovers.remove_orphans(held)
    assert (orphan.exists(), other.exists()) == (False, True)
    assert {path.name for path in (office.folder / "attempts").iterdir()} == {other.name, *office.agent.held}


def test_a_disk_that_is_full_does_not_stop_the_work(office: Office) -> None:
    """The journal can't be written; what runs is reported all the same."""
    one = quick()
    (office.folder / "journal.json.new").mkdir()
    office.assign(one)
    office.settle(3.0)
    office.executor.end(one.attempt.key)
    office.settle()
    assert office.told(one) == ["started", "ended"]
    (office.folder / "journal.json.new").rmdir()
    office.new_agent()
    office.settle()
    assert office.told(one) == ["started", "ended"]
