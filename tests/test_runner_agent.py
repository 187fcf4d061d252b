"""The runner's agent, stepped by hand: what it reads, does and reports."""

from pathlib import Path

import msgspec
import pytest

from dstack.model.errors import Failed, Unavailable
from dstack.model.events import Started
from dstack.model.job import Reason
from dstack.model.observation import AppendNotes
from dstack.model.pool import Phase, RunnerState
from dstack.model.runspec import Desired
from dstack.model.status import Status
from runner.executor import Exit, Signal, StartFailed
from runner.facts import Given
from tests.agents import NAME, RUN_KEY, Office
from tests.duties import a_job, given_job

OK = Exit(exit_code=0)


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
