"""Whose name a runner's is, how it ends, and its heartbeat."""

from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from dstack.model.errors import Failed
from dstack.model.job import Reason, Resources
from dstack.model.observation import SetRegistration
from dstack.model.personal import Layer
from dstack.model.pool import Heartbeat, Phase, RunnerState
from dstack.model.status import Status
from dstack.store.heartbeats import write_runner
from dstack.store.store import Store
from runner.executor import Exit
from runner.facts import Given
from tests.agents import NAME, Office
from tests.duties import a_job, given_job

OK = Exit(exit_code=0)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def quick(name: str = "train") -> Given:
    """A job that ends at once (see `Office.executor.ends`)."""
    return given_job(a_job(name))


def rival(office: Office, *, host: str = "there") -> None:
    """Another runner has our name."""
    registration = msgspec.structs.replace(
        office.registration(), instance="they", host=host, store="memory:", start="theirs"
    )
    change = SetRegistration(registration=registration)
    assert office.controller.commit([change], office.controller.observe(), atomic=True).won


def rival_beats(office: Office, beats: int) -> None:
    office_free = office.capacity
    heartbeat = Heartbeat(
        runner=NAME, instance="they", start="theirs", beats=beats, polls=1, free=office_free, at=office.moment().wall
    )
    write_runner(office.objects, heartbeat)


def test_a_live_owner_of_the_name_is_left_alone(office: Office) -> None:
    rival(office)
    for beats in range(20):
        rival_beats(office, beats)
        office.settle(2.0)
    assert office.agent.done
    assert "belongs to a live runner on there" in office.agent.failure
    assert office.registered is not None
    assert office.registered.instance == "they"


def test_a_dead_owner_of_the_name_is_followed_after_a_lease(office: Office) -> None:
    rival(office)
    rival_beats(office, 1)
    office.settle(58.0)
    assert office.registered is not None
    assert office.registered.instance == "they"
    office.settle(4.0)
    assert office.registered is not None
    assert office.registered.instance == "us"


def test_takeover_does_not_wait(tmp_path: Path) -> None:
    office = Office(tmp_path, takeover=True)
    rival(office)
    office.settle()
    assert office.registered is not None
    assert office.registered.instance == "us"


def test_a_runner_that_lost_its_name_kills_what_it_has_and_tells_nothing(office: Office) -> None:
    one = quick()
    office.assign(one)
    office.settle()
    rival(office)
    office.settle()
    assert office.agent.done
    assert "was taken over by a runner on there" in office.agent.failure
    assert office.executor.launches == {}
    assert office.told(one) == ["started"]


def test_a_copy_of_the_state_folder_stops_the_original(office: Office) -> None:
    office.settle()
    original = office.agent
    office.new_agent()
    office.settle()
    assert office.registered is not None
    assert office.registered.start == "start-2"
    office.agent = original
    office.settle()
    assert original.done
    assert "a copy of this state folder" in original.failure


def test_a_shutdown_with_nothing_in_hand_says_gone(office: Office) -> None:
    office.settle()
    office.agent.shutdown(stop_attempts=False)
    office.settle()
    assert office.agent.done
    assert office.agent.failure == ""
    assert office.registered is not None
    assert office.registered.state is RunnerState.GONE


def test_a_shutdown_leaves_attempts_running_and_does_not_say_gone(office: Office) -> None:
    one, waiting = quick(), given_job(a_job("waits", resources=Resources(cpu=2.0)), order="z")
    office.assign(one, waiting)
    office.settle()
    office.agent.shutdown(stop_attempts=False)
    office.settle()
    assert office.agent.done
    office.agent.close()
    assert office.executor.signals == []
    assert office.registered is not None
    assert office.registered.state is RunnerState.LIVE
    office.new_agent()
    office.settle()
    office.executor.ends["waits"] = OK
    office.executor.end(one.attempt.key)
    office.settle(2.0)
    assert (office.claim(one).status, office.claim(waiting).status) == (Status.DONE, Status.DONE)


def test_a_shutdown_that_stops_attempts_reports_them_interrupted(office: Office) -> None:
    one, waiting = quick(), given_job(a_job("waits", resources=Resources(cpu=2.0)), order="z")
    office.assign(one, waiting)
    office.settle()
    office.agent.shutdown(stop_attempts=True)
    office.settle(20.0)
    assert office.agent.done
    for each in (one, waiting):
        assert (office.claim(each).status, office.claim(each).reason) == (Status.FAILED, Reason.INTERRUPTED)
    assert office.registered is not None
    assert office.registered.state is RunnerState.GONE


def test_a_shutdown_does_not_wait_for_a_remote_that_is_away(office: Office) -> None:
    one = quick()
    office.assign(one)
    office.settle()
    office.ledger.away = True
    office.executor.end(one.attempt.key)
    office.agent.shutdown(stop_attempts=False)
    office.settle(12.0)
    assert office.agent.done
    office.agent.close()
    office.ledger.away = False
    office.new_agent()
    office.settle()
    assert office.told(one) == ["started", "ended"]


def test_it_beats_fast_at_first_then_every_quarter_of_a_lease(office: Office) -> None:
    seen: list[tuple[float, int]] = []
    while office.ticks < 200.0:
        office.settle(0.05)
        beats = office.heartbeat().beats if office.objects.head(f"runners/{NAME}.us.json") else 0
        if beats and (not seen or seen[-1][1] != beats):
            seen.append((office.ticks, beats))
    gaps = [later[0] - earlier[0] for earlier, later in pairwise(seen)]
    assert [round(gap, 1) for gap in gaps[:6]] == pytest.approx([0.25, 0.5, 1, 2, 4, 8], abs=0.16)
    assert gaps[-1] == pytest.approx(15.0, abs=0.2)


def test_a_change_of_attempts_is_beaten_within_a_second(office: Office) -> None:
    office.settle(60.0)
    one = quick()
    office.assign(one)
    office.settle(1.1)
    heartbeat = office.heartbeat()
    assert heartbeat.attempts == {one.attempt.key: Phase.RUNNING}
    assert heartbeat.free.cpu == 1.0
    assert heartbeat.assignment == office.controller.observe().assignments[NAME].oid
    assert heartbeat.polls > 1


def test_another_store_in_the_settings_is_beaten_in_before_it_is_registered(office: Office) -> None:
    office.settle()
    office.remote.refs["refs/heads/dstack/config"] = (office.remote.new_id(), b"store: 'memory:other'\nlease: 8\n")
    office.step()
    office.agent.step(office.moment())
    assert office.registered is not None
    assert office.registered.store == "memory:"
    beats = office.heartbeat().beats
    office.settle()
    assert office.heartbeat().beats > beats
    assert office.registered.store == "memory:other"


def test_settings_of_the_runner_s_own_user_or_machine_count_over_the_shared_ones(tmp_path: Path) -> None:
    own = Layer(origin="DSTACK_STORE", values={"store": "memory:near"})
    office = Office(tmp_path, own=(own,))
    office.remote.refs["refs/heads/dstack/config"] = (office.remote.new_id(), b"store: 'memory:other'\nlease: 8\n")
    office.settle()
    assert office.registered is not None
    assert office.registered.store == "memory:near"


def test_a_store_that_is_not_ours_ends_the_start(tmp_path: Path) -> None:
    class Refusing(Office):
        def open_store(self, _url: str) -> Store:
            msg = "the store holds nothing of this repository"
            raise Failed(msg)

    office = Refusing(tmp_path)
    office.settle(10.0)
    assert office.agent.done
    assert "nothing of this repository" in office.agent.failure
    assert office.registered is None
