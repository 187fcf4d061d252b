"""The runner's agent, stepped by hand: what it reads, does and reports, and that it may die anywhere."""

from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from dstack.model.errors import Failed, Unavailable
from dstack.model.events import Started
from dstack.model.job import Job, Reason, Resources
from dstack.model.observation import AppendNotes, SetRegistration
from dstack.model.pool import Heartbeat, Phase, RunnerState
from dstack.model.runspec import Desired
from dstack.model.status import Status
from dstack.store.heartbeats import write_runner
from dstack.store.store import Store
from runner.executor import Exit, Signal, StartFailed
from runner.facts import Given
from tests.agents import NAME, RUN_KEY, Killed, Office
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


def test_registers_beats_and_waits(office: Office) -> None:
    office.settle()
    assert office.registered is not None
    assert (office.registered.instance, office.registered.start) == ("us", "start-1")
    assert office.registered.store == "memory:"
    assert office.registered.state is RunnerState.LIVE
    assert office.heartbeat().start == "start-1"
    assert office.remote.pushes == 1


def test_an_attempt_from_assignment_to_claim(office: Office) -> None:
    one = quick()
    office.executor.ends["train"] = OK
    office.assign(one)
    office.settle()
    assert office.told(one) == ["started", "ended"]
    claim = office.claim(one)
    assert (claim.status, claim.exit_code, claim.seq) == (Status.DONE, 0, 2)
    assert office.log(one) == ("hello from train\n", True)
    assert claim.log_size == len("hello from train\n")
    assert claim.manifest is not None
    assert office.objects.get(f"manifests/{claim.manifest}", limit=1000) is not None
    assert office.heartbeat().attempts == {one.attempt.key: Phase.ENDED}
    assert len(office.trees.released) == 1
    assert list((office.folder / "attempts").iterdir()) == []
    office.unassign(one.attempt.key)
    office.settle(2.0)
    assert office.agent.held == {}
    assert office.heartbeat().attempts == {}


def test_a_start_alone_waits_for_company_and_an_end_goes_at_once(office: Office) -> None:
    one = quick()
    office.settle()
    before = office.remote.pushes
    office.assign(one)
    office.settle(0.1)
    assert office.told(one) == []
    office.settle(0.1)
    assert office.told(one) == ["started"]
    office.executor.end(one.attempt.key)
    office.settle(0.02)
    assert office.told(one) == ["started", "ended"]
    assert office.remote.pushes - before == 3, "one of them was the controller's"


def test_many_reports_share_a_push(office: Office) -> None:
    office.settle()
    many = [quick(f"w{number}") for number in range(8)]
    office.executor.ends = {f"w{number}": OK for number in range(8)}
    office.assign(*many)
    before = office.remote.pushes
    office.settle(2.0)
    assert [office.told(one) for one in many] == [["started", "ended"]] * 8
    assert office.remote.pushes - before <= 4


def test_a_push_of_which_nobody_knows_is_not_made_twice(office: Office) -> None:
    one = quick()
    office.executor.ends["train"] = OK
    office.settle()
    office.ledger.unsure = True
    office.assign(one)
    office.settle(5.0)
    assert office.told(one) == ["started", "ended"]
    office.ledger.unsure = False
    office.settle(5.0)
    assert office.told(one) == ["started", "ended"]
    assert office.agent.held[one.attempt.key].ended_known


def test_lines_go_behind_those_of_others(office: Office) -> None:
    one = quick()
    office.executor.ends["train"] = OK
    stranger = Started(seq=1, at=office.moment().wall, attempt=7, instance="they", nonce="x", log="logs/x")
    change = AppendNotes(key=RUN_KEY, writer=NAME, events={one.oid: (stranger,)})
    office.controller.commit([change], office.controller.observe(), atomic=True)
    office.assign(one)
    office.settle()
    assert [event.seq for event in office.events(one)] == [1, 2, 3]


def test_a_remote_that_is_away_stops_nobody(office: Office) -> None:
    one = quick()
    office.assign(one)
    office.settle()
    office.ledger.away = True
    office.executor.end(one.attempt.key)
    office.settle(30.0)
    assert office.told(one) == ["started"]
    assert office.agent.held[one.attempt.key].phase is Phase.ENDED
    office.ledger.away = False
    office.settle(90.0)
    assert office.told(one) == ["started", "ended"]


def test_a_store_that_is_away_delays_the_claim_and_loses_nothing(office: Office) -> None:
    one = quick()
    office.assign(one)
    office.settle()
    office.store_away = True
    office.executor.write(one.attempt.key, "more\n")
    office.executor.end(one.attempt.key)
    office.settle(300.0)
    assert office.told(one) == ["started"]
    office.store_away = False
    office.settle(90.0)
    assert office.told(one) == ["started", "ended"]
    assert office.log(one) == ("hello from train\nmore\n", True)
    assert office.claim(one).status is Status.DONE


def test_a_store_that_never_comes_back_fails_the_upload(office: Office) -> None:
    one = quick()
    office.assign(one)
    office.settle()
    office.store_away = True
    office.executor.end(one.attempt.key)
    office.settle(3800.0)
    claim = office.claim(one)
    assert (claim.status, claim.reason) == (Status.FAILED, Reason.UPLOAD_FAILED)


def test_a_line_is_visible_within_a_second(office: Office) -> None:
    one = quick()
    office.assign(one)
    office.settle()
    office.executor.write(one.attempt.key, "step 1\n")
    for _ in range(9):
        office.settle(0.1)
        office.agent.works.logs.tick()
    assert office.log(one) == ("hello from train\nstep 1\n", False)


def test_stop_and_abort(office: Office) -> None:
    for desired, status, kept in ((Desired.STOP, Status.STOPPED, True), (Desired.ABORT, Status.ABORTED, False)):
        one = quick(desired.value)
        office.assign(one)
        office.settle()
        office.want(one.attempt.key, desired)
        office.settle(11.0)
        claim = office.claim(one)
        assert claim.status is status
        assert (claim.manifest is not None) is kept
        assert office.log(one)[1]
        assert f"dstack: {claim.reason}" in office.log(one)[0]
    assert [signal for _, signal in office.executor.signals] == [Signal.TERM, Signal.KILL, Signal.KILL]


def test_unassigned_is_killed_and_nothing_of_it_published(office: Office) -> None:
    one = quick()
    office.assign(one)
    office.settle(0.1)
    office.unassign(one.attempt.key)
    office.settle()
    assert office.executor.signals == [(one.attempt.key, Signal.KILL)]
    assert office.told(one) == []
    assert office.agent.held == {}
    assert office.executor.launches == {}


@pytest.mark.parametrize("what", ["unreadable", "foreign"])
def test_an_odd_remote_takes_nothing_away(office: Office, what: str) -> None:
    one = quick()
    office.assign(one)
    office.settle()
    ref = f"refs/dstack/assignments/{NAME}"
    if what == "unreadable":
        office.remote.refs[ref] = (office.remote.new_id(), b"garbage")
    else:
        office.remote.repository = "another-repo"
        del office.remote.refs[ref]
    office.settle(10.0)
    assert office.executor.signals == []
    assert office.agent.held[one.attempt.key].phase is Phase.RUNNING


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (StartFailed(Reason.CHECKOUT, "the code was replaced"), Reason.CHECKOUT),
        (StartFailed(Reason.IMAGE_PULL, "there is no such image"), Reason.IMAGE_PULL),
        (Failed("no rights"), Reason.CHECKOUT),
        (OSError(28, "No space left on device"), Reason.DISK_FULL),
        (ZeroDivisionError("of our own"), Reason.INTERNAL),
    ],
)
def test_what_fails_before_the_commands_has_a_reason_and_a_log(
    office: Office, trouble: Exception, reason: Reason
) -> None:
    one = quick()
    office.trees.trouble = trouble
    office.assign(one)
    office.settle()
    claim = office.claim(one)
    assert (claim.status, claim.reason) == (Status.FAILED, reason)
    assert office.told(one) == ["ended"]
    text, closed = office.log(one)
    assert text.startswith(f"dstack: {reason}: ")
    assert closed


def test_code_that_cannot_be_fetched_for_now_is_fetched_later(office: Office) -> None:
    one = quick()
    office.executor.ends["train"] = OK
    office.trees.trouble = Unavailable("the remote is slow")
    office.assign(one)
    office.settle(20.0)
    office.trees.trouble = None
    office.settle(60.0)
    assert office.claim(one).status is Status.DONE
    assert "the remote is slow; trying again" in office.log(one)[0]


def test_a_missing_input_is_told(office: Office) -> None:
    one = quick()
    attempt = msgspec.structs.replace(one.attempt, restore="f" * 64)
    one = Given(attempt=attempt, oid=one.oid, job=one.job)
    office.assign(one)
    office.settle()
    assert office.claim(one).reason is Reason.INPUT_MISSING


def test_a_declared_artifact_that_is_missing_is_a_warning(office: Office) -> None:
    one = given_job(a_job(artifacts=("out", "nowhere")))
    office.executor.ends["train"] = OK
    office.assign(one)
    office.settle()
    assert office.claim(one).status is Status.DONE
    assert any("nowhere" in warning for warning in office.claim(one).warnings)
    assert "'nowhere' does not exist" in office.log(one)[0]


def test_a_job_that_cannot_be_read_fails_alone(office: Office) -> None:
    broken, sound = quick("broken"), quick("sound")
    office.executor.ends["sound"] = OK
    office.assign(broken, sound)
    office.remote.blobs[broken.oid] = b"no json"
    office.settle()
    assert office.claim(broken).reason is Reason.INVALID
    assert office.claim(sound).status is Status.DONE


def test_odd_names_are_passed_over(office: Office) -> None:
    one = quick()
    odd = msgspec.structs.replace(one.attempt, run="../../etc")
    office.assign(Given(attempt=odd, oid=one.oid, job=one.job))
    office.settle()
    assert office.agent.held == {}
    assert office.executor.started == []


# Dying anywhere


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


# Whose name it is


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


# Ending


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


# Heartbeats


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
