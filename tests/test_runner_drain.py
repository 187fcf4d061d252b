"""How a runner drains, and what a full disk does to it."""

from pathlib import Path

import pytest

from dstack.model.job import Resources
from dstack.model.pool import RunnerState
from dstack.model.status import Status
from runner.disk import LEAST, LOOK_SECONDS, MOST, Guard, Space
from runner.executor import Exit
from runner.facts import Given
from runner.statefolder import DRAIN, ask_to_drain, forget_drain, is_asked_to_drain, is_held, locked
from tests.agents import Office
from tests.duties import a_job, given_job
from tests.test_runner_standing import rival

FULL = Space(free=2**28, total=2**40)
ROOM = Space(free=2**36, total=2**40)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def state(office: Office) -> RunnerState:
    assert office.registered is not None
    return office.registered.state


def two(office: Office) -> tuple[Given, Given]:
    """One that runs, and one that waits for room."""
    runs, waits = given_job(a_job("a", resources=Resources(cpu=2.0))), given_job(a_job("b"))
    office.assign(runs, waits)
    office.settle()
    assert office.executor.started == [runs.attempt.key]
    return runs, waits


def test_a_drain_finishes_what_runs_gives_back_what_waits_and_ends(office: Office) -> None:
    runs, waits = two(office)
    office.agent.drain()
    office.settle(3.0)
    assert (office.agent.done, state(office), office.heartbeat().pause) == (
        False,
        RunnerState.DRAINING,
        "it is draining",
    )
    assert office.heartbeat().attempts[waits.attempt.key] == "waiting"
    office.unassign(waits.attempt.key)
    office.settle(3600.0)
    assert (office.agent.done, state(office)) == (False, RunnerState.DRAINING)
    office.executor.end(runs.attempt.key)
    office.agent.poke()
    office.until(lambda: office.agent.done)
    assert (office.agent.failure, office.agent.drained, state(office)) == ("", True, RunnerState.GONE)
    assert office.claim(runs).status is Status.DONE
    assert office.executor.started == [runs.attempt.key]


def test_a_drain_with_nothing_in_hand_ends_at_once(office: Office) -> None:
    office.settle()
    office.agent.drain()
    office.settle(2.0)
    assert office.agent.drained
    assert state(office) is RunnerState.GONE


def test_a_drain_does_not_wait_for_ever_for_a_controller_to_take_back_what_never_began(office: Office) -> None:
    runs, waits = two(office)
    office.agent.drain()
    office.executor.end(runs.attempt.key)
    office.agent.poke()
    office.until(lambda: office.agent.done, 120.0)
    assert state(office) is RunnerState.GONE
    assert office.told(waits) == []


def test_a_drain_waits_for_a_remote_that_is_away_and_loses_no_claim(office: Office) -> None:
    runs, waits = two(office)
    office.unassign(waits.attempt.key)
    office.agent.drain()
    office.settle(2.0)
    office.ledger.away = True
    office.executor.end(runs.attempt.key)
    office.agent.poke()
    office.settle(600.0)
    assert not office.agent.done
    office.ledger.away = False
    office.until(lambda: office.agent.done, 120.0)
    assert office.claim(runs).status is Status.DONE
    assert state(office) is RunnerState.GONE


def test_a_stop_ends_a_drain_and_an_interrupt_leaves_it(office: Office) -> None:
    runs, _ = two(office)
    office.agent.drain()
    office.settle(2.0)
    office.agent.shutdown(stop_attempts=True)
    office.agent.drain()
    office.settle(1.0)
    assert [signal for _, signal in office.executor.signals] == ["TERM"]
    office.agent.shutdown(stop_attempts=False)
    office.settle(10.0)
    assert office.agent.done
    assert runs.attempt.key in office.executor.launches


def test_a_name_that_is_taken_over_ends_a_drain_too(office: Office) -> None:
    two(office)
    office.agent.drain()
    office.settle(2.0)
    rival(office)
    office.settle(2.0)
    assert (office.agent.done, office.agent.drained) == (True, False)
    assert "was taken over by a runner on there" in office.agent.failure
    assert office.executor.launches == {}


def test_a_drain_that_is_taken_back_goes_on_as_before(office: Office) -> None:
    runs, waits = two(office)
    office.agent.drain()
    office.settle(2.0)
    office.agent.undrain()
    office.settle(2.0)
    assert (state(office), office.heartbeat().pause) == (RunnerState.LIVE, "")
    office.executor.end(runs.attempt.key)
    office.agent.poke()
    office.until(lambda: waits.attempt.key in office.executor.started)


def test_a_full_disk_begins_nothing_harms_nothing_and_is_left_by_itself(office: Office) -> None:
    office.space = ROOM
    runs, waits = two(office)
    office.space = FULL
    office.settle(2 * LOOK_SECONDS)
    office.executor.ends["b"] = Exit(exit_code=0)
    assert (state(office), office.trees.trimmed) == (RunnerState.LIVE, 1)
    assert office.heartbeat().pause == "its disk is nearly full, 256MiB free of 1TiB"
    office.executor.end(runs.attempt.key)
    office.agent.poke()
    office.settle(30.0)
    assert office.claim(runs).status is Status.DONE
    assert office.executor.started == [runs.attempt.key]
    assert not office.agent.done
    office.settle(60.0)
    assert office.trees.trimmed == 2
    office.space = ROOM
    office.settle(2 * LOOK_SECONDS)
    assert office.heartbeat().pause == ""
    assert office.executor.started == [runs.attempt.key, waits.attempt.key]


@pytest.mark.parametrize(
    ("keep", "total", "least"),
    [(None, 2**32, LEAST), (None, 2**35, 2**35 * 0.05), (None, 2**50, MOST), (10, 2**50, 10), (0, 2**50, 0)],
)
def test_how_much_is_kept_free(keep: int | None, total: int, least: float) -> None:
    assert not Guard(keep=keep).seen(Space(free=int(least) + 1, total=total), 0.0).pause
    assert bool(Guard(keep=keep).seen(Space(free=int(least) - 1, total=total), 0.0).pause)


def test_a_disk_on_the_edge_does_not_flap_and_one_that_cannot_be_asked_has_room() -> None:
    paused = Guard(keep=1000).seen(Space(free=999, total=10_000), 0.0)
    assert paused.seen(Space(free=1001, total=10_000), 5.0).pause == paused.pause
    assert not paused.seen(Space(free=1100, total=10_000), 5.0).pause
    assert not paused.seen(None, 5.0).pause


def test_a_drain_is_asked_for_in_the_state_folder(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    assert not is_held(folder)
    with locked(folder):
        assert is_held(folder)
        ask_to_drain(folder)
        ask_to_drain(folder)
        assert is_asked_to_drain(folder)
    assert not is_held(folder)
    forget_drain(folder)
    forget_drain(folder)
    assert not (folder / DRAIN).exists()
