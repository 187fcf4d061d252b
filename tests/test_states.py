"""The fold: whatever order and repetition events are read in, the same state; a fence that holds; ends that stay."""

from collections.abc import Sequence
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.events import Event, Planned, Resumed, RunFinished
from dstack.model.job import Reason
from dstack.model.runspec import Desired, Wanted
from dstack.model.states import FRESH, JobState, RunState, desired_of, fold_job, fold_root, job_status, run_status
from dstack.model.status import Status
from tests.model_values import EPOCH, assigned, ended, finished, revoked, started

STATUSES = (Status.DONE, Status.FAILED, Status.STOPPED, Status.ABORTED)


@st.composite
def controller_notes(draw: st.DrawFn) -> list[Event]:
    """What a controller might write on one job, over several generations, sense or not."""
    events: list[Event] = []
    for seq in range(1, draw(st.integers(1, 8)) + 1):
        attempt, generation = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        runner, nonce = draw(st.sampled_from(["otter", "heron"])), draw(st.sampled_from(["n", "m"]))
        events.append(
            draw(
                st.sampled_from(
                    [
                        assigned(attempt, seq=seq, runner=runner, generation=generation, nonce=nonce),
                        revoked(attempt, seq=seq, generation=generation),
                        finished(draw(st.sampled_from(STATUSES)), seq=seq, generation=generation, attempt=attempt),
                    ]
                )
            )
        )
    return events


@st.composite
def runner_notes(draw: st.DrawFn) -> list[Event]:
    """What a runner might claim."""
    runner = draw(st.sampled_from(["otter", "heron"]))
    events: list[Event] = []
    for seq in range(1, draw(st.integers(0, 5)) + 1):
        attempt, nonce = draw(st.integers(1, 4)), draw(st.sampled_from(["n", "m"]))
        made = started(attempt, seq=seq, runner=runner, nonce=nonce)
        claim = ended(attempt, seq=seq, runner=runner, nonce=nonce, status=draw(st.sampled_from(STATUSES)))
        events.append(draw(st.sampled_from([made, claim])))
    return events


def repeated(data: st.DataObject, events: Sequence[Event]) -> list[Event]:
    """The same events in another order, some of them twice."""
    twice = [*events, *data.draw(st.lists(st.sampled_from(events), max_size=4) if events else st.just([]))]
    return data.draw(st.permutations(twice))


@given(st.data(), controller_notes(), runner_notes(), runner_notes(), st.integers(1, 3))
def test_order_and_repetition_do_not_matter(
    data: st.DataObject, decided: list[Event], otter: list[Event], heron: list[Event], generation: int
) -> None:
    """Events travel in notes of several writers: any interleaving folds to the same state."""
    one = fold_job(decided, {"otter": otter, "heron": heron}, generation=generation)
    claims = {"heron": repeated(data, heron), "otter": repeated(data, otter)}
    assert fold_job(repeated(data, decided), claims, generation=generation) == one


@given(controller_notes(), controller_notes(), st.integers(1, 3))
def test_a_finished_job_never_changes_without_a_resume(
    before: list[Event], after: list[Event], generation: int
) -> None:
    """More events in the same generation leave the end as it is."""
    one = fold_job(before, {}, generation=generation)
    later = [msgspec.structs.replace(event, seq=event.seq + len(before)) for event in after]
    both = fold_job([*before, *later], {}, generation=generation)
    if one.finished:
        assert both.finished == one.finished
        assert both.outcome == one.outcome


@given(controller_notes(), runner_notes(), st.integers(1, 3))
def test_only_the_assigned_runner_instance_and_nonce_count(
    decided: list[Event], claims: list[Event], generation: int
) -> None:
    """Every claim that counts answers an assignment that was not revoked."""
    state = fold_job(decided, {"otter": claims}, generation=generation)
    for attempt in state.attempts:
        for claim in (attempt.started, attempt.ended):
            if claim:
                assert attempt.revoked is None
                assert claim.instance == attempt.assigned.instance == "otter-instance"
                assert claim.nonce == attempt.assigned.nonce
                assert claim.attempt == attempt.number


@pytest.mark.parametrize(
    ("claim", "counts"),
    [
        (ended(), True),
        (ended(attempt=2), False),
        (ended(nonce="other"), False),
        (ended(runner="heron"), False),
    ],
)
def test_the_fence(claim: Event, counts: bool) -> None:  # noqa: FBT001 (a table's column)
    state = fold_job([assigned()], {"otter": [claim]})
    assert state.open is not None
    assert (state.open.ended is not None) is counts


def test_a_revoked_attempt_is_not_believed_even_if_it_ended_well() -> None:
    state = fold_job([assigned(), revoked()], {"otter": [started(), ended()]})
    assert state.open is None
    assert state.attempts[0].ended is None


def test_a_claim_in_the_note_of_another_runner_does_not_count() -> None:
    state = fold_job([assigned()], {"heron": [ended()]})
    assert state.open is not None
    assert state.open.ended is None


def test_a_generation_that_no_resume_began_does_not_count() -> None:
    state = fold_job([assigned(), finished(seq=2), assigned(2, seq=3, generation=2)], {}, generation=1)
    assert state.outcome is Status.DONE
    assert len(state.attempts) == 1


def test_a_resume_begins_a_new_life_with_the_next_attempt() -> None:
    events = [assigned(), finished(Status.STOPPED, seq=2), assigned(2, seq=3, generation=2)]
    state = fold_job(events, {}, generation=2)
    assert state.outcome is None
    assert state.open is not None
    assert state.open.number == 2
    assert [attempt.number for attempt in state.tried] == [2]


def test_the_root_note_tells_generation_and_end() -> None:
    planned = Planned(seq=1, at=EPOCH, generation=1, jobs=("b" * 40,), store="file:///s")
    done = RunFinished(seq=2, at=EPOCH, generation=1, status=Status.FAILED, reason=Reason.EXIT)
    resumed = Resumed(seq=3, at=EPOCH, generation=2, jobs=("b" * 12,))
    before, _ = fold_root([done, planned])
    after, generations = fold_root([resumed, done, planned, resumed])
    assert before.finished == done
    assert (after.finished, after.generation, generations) == (None, 2, {"b" * 12: 2})
    assert after.planned == planned


@pytest.mark.parametrize(
    ("wanted", "desired"),
    [
        (Wanted(), Desired.RUN),
        (Wanted(desired=Desired.STOP), Desired.STOP),
        (Wanted(jobs={"j": Desired.STOP}), Desired.STOP),
        (Wanted(jobs={"k": Desired.STOP}), Desired.RUN),
        (Wanted(desired=Desired.STOP, jobs={"j": Desired.ABORT}), Desired.ABORT),
        (Wanted(desired=Desired.ABORT, jobs={"j": Desired.STOP}), Desired.ABORT),
        (Wanted(desired=Desired.STOP, generation=2), Desired.RUN),
    ],
)
def test_what_is_wanted_of_a_job(wanted: Wanted, desired: Desired) -> None:
    assert desired_of("j", wanted, 1) is desired


@pytest.mark.parametrize(
    ("state", "desired", "ready", "status"),
    [
        (FRESH, Desired.RUN, False, Status.SUBMITTED),
        (FRESH, Desired.RUN, True, Status.QUEUED),
        (FRESH, Desired.STOP, True, Status.STOPPING),
        (FRESH, Desired.ABORT, True, Status.ABORTING),
        (fold_job([assigned()], {}), Desired.RUN, True, Status.ASSIGNED),
        (fold_job([assigned()], {"otter": [started()]}), Desired.RUN, True, Status.RUNNING),
        (fold_job([assigned()], {"otter": [started()]}), Desired.STOP, True, Status.STOPPING),
        (fold_job([assigned(), revoked()], {}), Desired.RUN, True, Status.QUEUED),
        (fold_job([assigned(), finished()], {}), Desired.STOP, True, Status.DONE),
    ],
)
def test_the_word_for_a_job(state: JobState, desired: Desired, ready: bool, status: Status) -> None:  # noqa: FBT001
    assert job_status(state, desired, ready=ready) is status


@pytest.mark.parametrize(
    ("jobs", "status"),
    [
        ("DONE RUNNING FAILED", Status.RUNNING),
        ("DONE QUEUED SUBMITTED", Status.QUEUED),
        ("DONE ASSIGNED QUEUED", Status.ASSIGNED),
        ("STOPPING QUEUED", Status.STOPPING),
        ("STOPPING ABORTING", Status.ABORTING),
        ("DONE FAILED ABORTED STOPPED", Status.FAILED),
        ("DONE ABORTED STOPPED", Status.ABORTED),
        ("DONE STOPPED", Status.STOPPED),
        ("DONE DONE", Status.DONE),
        ("FAILED SKIPPED", Status.FAILED),
        ("", Status.SUBMITTED),
    ],
)
def test_the_word_for_a_run(jobs: str, status: Status) -> None:
    assert run_status(RunState(), [Status(word) for word in jobs.split()]) is status


def test_events_of_the_same_number_count_once_though_read_twice() -> None:
    event = assigned()
    later = msgspec.structs.replace(event, at=EPOCH + timedelta(seconds=1))
    assert len(fold_job([event, later], {}).attempts) == 1
