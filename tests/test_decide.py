"""The decisions of a turn, by tables: what is planned, placed, concluded, retried, stopped, given up."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest

from dstack.model.decide import Decisions, decide
from dstack.model.events import Assigned, Event, Finished, JobSummary, Planned, Revoked, RunFinished
from dstack.model.job import Reason, Retry
from dstack.model.observation import AppendNotes, Assignments, SetAssignments
from dstack.model.plan import PlannedJob
from dstack.model.pool import Attempt
from dstack.model.runspec import Desired, Options, Wanted
from dstack.model.states import RunState, fold_job
from dstack.model.status import Status
from dstack.model.world import RunView
from tests.model_values import (
    EPOCH,
    ROOT,
    assigned,
    ended,
    finished,
    moment,
    planned,
    revoked,
    run_view,
    runner_view,
    started,
    world,
)

NOW = moment()
TRAIN = planned("train")


def events_on(decisions: Decisions, oid: str) -> list[Event]:
    """What a turn appends to the note on an object."""
    return [
        event for change in decisions.changes if isinstance(change, AppendNotes) for event in change.events.get(oid, ())
    ]


def assignments(decisions: Decisions) -> dict[str, dict[str, Attempt]]:
    """The assignment refs a turn writes."""
    return {change.runner: dict(change.attempts) for change in decisions.changes if isinstance(change, SetAssignments)}


def holding(*events: Event, claims: Sequence[Event] = (), job: PlannedJob = TRAIN, **view: Wanted) -> RunView:
    """A run of one job with this history."""
    folded = fold_job(events, {"otter": claims})
    plan = Planned(seq=1, at=EPOCH, generation=1, jobs=(job.oid,), store="file:///store")
    lines = {job.oid: len(events), ROOT: 1}
    return run_view(job, state=RunState(planned=plan, jobs={job.id: folded}), lines=lines, wanted=view.get("wanted"))


def test_a_new_run_is_planned_and_placed_in_one_turn() -> None:
    decisions = decide(world(run_view(TRAIN), runners=[runner_view()]), NOW)
    (plan,) = events_on(decisions, ROOT)
    (placed,) = events_on(decisions, TRAIN.oid)
    assert isinstance(plan, Planned)
    assert plan.jobs == (TRAIN.oid,)
    assert isinstance(placed, Assigned)
    assert (placed.attempt, placed.runner, placed.seq) == (1, "otter", 1)
    attempt = assignments(decisions)["otter"][f"{TRAIN.id}.1"]
    assert (attempt.nonce, attempt.log) == (placed.nonce, f"logs/fast-rabbit-1.{ROOT[:12]}/{TRAIN.id}/1")


def test_nothing_is_decided_twice() -> None:
    run = holding(assigned())
    attempt = _attempt(run)
    there = {"otter": Assignments(oid="1", attempts={attempt.key: attempt}, jobs={attempt.key: TRAIN.oid})}
    assert decide(world(run, runners=[runner_view()], assignments=there), NOW).changes == ()


def _attempt(run: RunView) -> Attempt:
    (held,) = assignments(decide(world(run, runners=[runner_view()]), NOW))["otter"].values()
    return held


def test_an_assignment_that_got_lost_is_written_again() -> None:
    assert list(assignments(decide(world(holding(assigned()), runners=[runner_view()]), NOW))["otter"]) == [
        f"{TRAIN.id}.1"
    ]


def test_a_claim_finishes_the_job_the_run_and_clears_the_assignment() -> None:
    run = holding(assigned(), claims=[started(), ended(manifest="m")])
    there = {"otter": Assignments(oid="1", attempts={"x.1": _attempt(holding(assigned()))}, jobs={})}
    decisions = decide(world(run, runners=[runner_view()], assignments=there), NOW)
    (end,) = events_on(decisions, TRAIN.oid)
    assert isinstance(end, Finished)
    assert (end.status, end.attempt, end.runner, end.manifest, end.seq) == (Status.DONE, 1, "otter", "m", 2)
    verdict, line = events_on(decisions, ROOT)
    assert isinstance(verdict, RunFinished)
    assert (verdict.status, verdict.counts, verdict.seq) == (Status.DONE, {"DONE": 1}, 2)
    assert isinstance(line, JobSummary)
    assert (line.job, line.status, line.seq) == (TRAIN.id, Status.DONE, 3)
    assert assignments(decisions) == {"otter": {}}


def test_dependents_start_in_the_turn_that_finishes_what_they_need() -> None:
    first = planned("prepare")
    then = planned("train", first)
    done = fold_job([assigned()], {"otter": [ended(manifest="m")]})
    run = run_view(first, then, state=RunState(jobs={first.id: done}))
    decisions = decide(world(run, runners=[runner_view()]), NOW)
    (placed,) = events_on(decisions, then.oid)
    assert isinstance(placed, Assigned)
    (attempt,) = assignments(decisions)["otter"].values()
    assert [(given.job, given.manifest) for given in attempt.inputs] == [(first.id, "m")]


@pytest.mark.parametrize(
    ("status", "reason", "follows"),
    [
        (Status.FAILED, Reason.EXIT, Status.SKIPPED),
        (Status.STOPPED, Reason.STOPPED, Status.STOPPED),
        (Status.ABORTED, Reason.ABORTED, Status.ABORTED),
    ],
)
def test_what_cannot_run_any_more_is_finished_at_once(status: Status, reason: Reason, follows: Status) -> None:
    first = planned("prepare")
    then = planned("train", first)
    last = planned("evaluate", then)
    over = fold_job([assigned()], {"otter": [ended(status=status, reason=reason, exit_code=1)]})
    run = run_view(first, then, last, state=RunState(jobs={first.id: over}))
    decisions = decide(world(run, runners=[runner_view()]), NOW)
    ends = [events_on(decisions, job.oid)[0] for job in (then, last)]
    assert [end.status for end in ends if isinstance(end, Finished)] == [follows, follows]
    assert all(isinstance(end, Finished) and end.reason is Reason.DEPENDENCY for end in ends)


@pytest.mark.parametrize(
    ("retry", "reason", "tries"),
    [
        (None, Reason.EXIT, 0),
        (None, Reason.LOST, 2),
        (None, Reason.INTERRUPTED, 20),
        (Retry(attempts=3), Reason.EXIT, 3),
        (Retry(attempts=3), Reason.LOST, 3),
        (Retry(attempts=1), Reason.LOST, 2),
        (Retry(attempts=3, on=(Reason.OOM,)), Reason.EXIT, 0),
        (Retry(attempts=3, on=(Reason.OOM,)), Reason.OOM, 3),
        (Retry(attempts=3), Reason.STOPPED, 0),
    ],
)
def test_how_often_a_failure_is_tried_again(retry: Retry | None, reason: Reason, tries: int) -> None:
    job = planned("train", retry=retry)
    history: list[Event] = []
    for attempt in range(1, 30):
        history.append(assigned(attempt, seq=2 * attempt - 1))
        claim = ended(attempt, seq=attempt, status=Status.FAILED, reason=reason, exit_code=1)
        run = holding(*history, claims=[claim], job=job)
        first = events_on(decide(world(run, runners=[runner_view()]), NOW), job.oid)[0]
        if isinstance(first, Finished):
            assert (first.status, first.reason) == (Status.FAILED, reason)
            assert attempt - 1 == tries
            return
        assert isinstance(first, Revoked)
        history.append(revoked(attempt, seq=2 * attempt, reason=reason))
    pytest.fail("it is tried for ever")


def test_a_retry_starts_at_once_from_what_the_failed_attempt_left() -> None:
    job = planned("train", retry=Retry(attempts=1))
    claim = ended(status=Status.FAILED, reason=Reason.EXIT, exit_code=3, manifest="m")
    decisions = decide(world(holding(assigned(), claims=[claim], job=job), runners=[runner_view()]), NOW)
    gone, again = events_on(decisions, job.oid)
    assert isinstance(gone, Revoked)
    assert (gone.exit_code, gone.manifest) == (3, "m")
    assert isinstance(again, Assigned)
    assert (again.attempt, again.restore) == (2, "m")


def test_a_backoff_is_waited_for() -> None:
    job = planned("train", retry=Retry(attempts=1, backoff=10.0))
    run = holding(assigned(), revoked(reason=Reason.EXIT), job=job)
    view = world(run, runners=[runner_view()])
    early = decide(replace(view, settled={f"{job.id}.1": 995.0}), NOW)
    assert (early.changes, early.next_at) == ((), 1005.0)
    (placed,) = events_on(decide(replace(view, settled={f"{job.id}.1": 989.0}), NOW), job.oid)
    assert isinstance(placed, Assigned)


@pytest.mark.parametrize(("changed", "lost"), [(1000.0, False), (941.0, False), (940.0, True)])
def test_a_runner_whose_heartbeat_stands_still_for_a_lease_is_lost(changed: float, lost: bool) -> None:  # noqa: FBT001 (a table's column)
    run = holding(assigned(), claims=[started()])
    decisions = decide(world(run, runners=[runner_view(changed=changed), runner_view("heron")]), NOW)
    events = events_on(decisions, TRAIN.oid)
    if not lost:
        assert events == []
        assert decisions.next_at == changed + 60
        return
    gone, again = events
    assert isinstance(gone, Revoked)
    assert gone.reason is Reason.LOST
    assert isinstance(again, Assigned)
    assert (again.runner, again.attempt) == ("heron", 2)


def test_an_attempt_of_another_instance_is_given_up_at_once() -> None:
    other = runner_view()
    other = replace(other, registration=msgspec.structs.replace(other.registration, instance="new"))
    first = events_on(decide(world(holding(assigned()), runners=[other]), NOW), TRAIN.oid)[0]
    assert isinstance(first, Revoked)


@pytest.mark.parametrize(("since", "given_up"), [(881.0, False), (880.0, True)])
def test_an_attempt_its_runner_never_names_is_given_up_after_two_leases(since: float, given_up: bool) -> None:  # noqa: FBT001 (a table's column)
    runner = runner_view()
    runner = replace(runner, watched=replace(runner.watched, missing={f"{TRAIN.id}.1": since}))
    events = events_on(decide(world(holding(assigned()), runners=[runner]), NOW), TRAIN.oid)
    assert any(isinstance(event, Revoked) for event in events) is given_up


@pytest.mark.parametrize(("desired", "status"), [(Desired.STOP, Status.STOPPED), (Desired.ABORT, Status.ABORTED)])
def test_a_stop_ends_what_has_not_begun_and_tells_the_runner_of_the_rest(desired: Desired, status: Status) -> None:
    waiting = planned("evaluate", TRAIN)
    folded = fold_job([assigned()], {"otter": [started()]})
    run = run_view(TRAIN, waiting, state=RunState(jobs={TRAIN.id: folded}), wanted=Wanted(desired=desired))
    decisions = decide(world(run, runners=[runner_view()]), NOW)
    (end,) = events_on(decisions, waiting.oid)
    assert isinstance(end, Finished)
    assert end.status is status
    assert events_on(decisions, TRAIN.oid) == []
    assert assignments(decisions)["otter"][f"{TRAIN.id}.1"].desired is desired


# The runner was lost at 960 (silent since 900, a lease of 60 s).
@pytest.mark.parametrize(
    ("opened", "given_up"), [(None, True), (959.0, True), (960.0, True), (961.0, False), (999.0, False)]
)
def test_an_attempt_that_another_controller_gave_to_a_lost_runner_has_a_lease(
    opened: float | None,
    given_up: bool,  # noqa: FBT001 (a table's column)
) -> None:
    run = holding(assigned())
    attempt = _attempt(run)
    there = {"otter": Assignments(oid="1", attempts={attempt.key: attempt}, jobs={attempt.key: TRAIN.oid})}
    seen = world(run, runners=[runner_view(changed=900.0)], assignments=there)
    seen = replace(seen, opened={} if opened is None else {attempt.key: opened})
    assert any(isinstance(event, Revoked) for event in events_on(decide(seen, NOW), TRAIN.oid)) == given_up


def test_a_stop_of_an_attempt_whose_runner_is_lost_ends_it() -> None:
    run = holding(assigned(), wanted=Wanted(desired=Desired.STOP))
    _, end = events_on(decide(world(run, runners=[runner_view(changed=0.0)]), NOW), TRAIN.oid)
    assert isinstance(end, Finished)
    assert (end.status, end.reason) == (Status.STOPPED, Reason.LOST)


def test_a_stopped_job_is_not_tried_again() -> None:
    job = planned("train", retry=Retry(attempts=5))
    claim = ended(status=Status.FAILED, reason=Reason.EXIT, exit_code=1)
    run = holding(assigned(), claims=[claim], job=job, wanted=Wanted(desired=Desired.STOP))
    (end,) = events_on(decide(world(run, runners=[runner_view()]), NOW), job.oid)
    assert isinstance(end, Finished)
    assert end.status is Status.FAILED


def test_a_run_that_cannot_be_planned_fails_with_the_reason() -> None:
    run = replace(run_view(), plan=None, problem="workflows.yaml:1:1: nonsense")
    (end,) = events_on(decide(world(run), NOW), ROOT)
    assert isinstance(end, RunFinished)
    assert (end.status, end.reason, end.message) == (Status.FAILED, Reason.INVALID, "workflows.yaml:1:1: nonsense")


def test_a_runner_not_seen_alive_gets_nothing() -> None:
    decisions = decide(world(run_view(TRAIN), runners=[runner_view(proven=False)]), NOW)
    assert events_on(decisions, TRAIN.oid) == []
    assert decisions.waiting == {TRAIN.id: "waits for a runner: none is live"}


def test_room_is_what_open_attempts_leave_with_a_small_backlog() -> None:
    jobs = [planned(f"job-{number}", cpu=1.0) for number in range(20)]
    decisions = decide(world(run_view(*jobs), runners=[runner_view(cpu=2.0)]), NOW)
    assert len(assignments(decisions)["otter"]) == 2 + 2 * 2


def test_long_jobs_are_not_queued_on_a_busy_runner() -> None:
    jobs = [planned(f"job-{number}", cpu=1.0) for number in range(6)]
    done = fold_job([assigned(), finished(seq=2)], {"otter": [ended(seconds=60.0)]})
    run = run_view(*jobs, state=RunState(jobs={jobs[0].id: done}))
    decisions = decide(world(run, runners=[runner_view(cpu=2.0)]), NOW)
    assert len(assignments(decisions)["otter"]) == 2


def test_priority_goes_first_then_age() -> None:
    low, high = planned("low", root="b" * 40), planned("high")
    runs = [run_view(low, name="aa"), run_view(high, name="zz", options=Options(priority=5))]
    decisions = decide(world(*runs, runners=[runner_view(cpu=1.0)]), NOW)
    held = sorted(assignments(decisions)["otter"].values(), key=lambda attempt: attempt.order)
    assert held[0].job == high.id


def test_a_large_job_is_not_starved_by_small_ones() -> None:
    small, large = planned("small", cpu=1.0), planned("large", cpu=2.0)
    busy = planned("busy", cpu=1.0)
    slow = fold_job([assigned(), finished(seq=2)], {"otter": [ended(seconds=60.0)]})
    done = planned("done")
    running = fold_job([assigned()], {"otter": [started()]})
    state_now = RunState(jobs={done.id: slow, busy.id: running})
    run = run_view(done, busy, large, small, state=state_now)
    decisions = decide(world(run, runners=[runner_view(cpu=2.0)]), NOW)
    assert events_on(decisions, large.oid) == events_on(decisions, small.oid) == []
    assert set(decisions.waiting) == {large.id, small.id}


def test_a_job_no_runner_can_take_says_why() -> None:
    huge = planned("huge", cpu=64.0)
    decisions = decide(world(run_view(huge), runners=[runner_view(cpu=2.0)]), NOW)
    assert decisions.waiting == {huge.id: "no live runner can take it: otter has 2 cpu in all"}


def test_a_local_run_is_left_to_its_own_controller_while_its_runner_lives() -> None:
    run = run_view(TRAIN, options=Options(only="home"))
    alive = [runner_view("home", private=True), runner_view()]
    assert decide(world(run, runners=alive), NOW).changes == ()
    beside = decide(replace(world(run, runners=alive), only=run.key), NOW)
    assert list(assignments(beside)) == ["home"]


def test_a_local_run_whose_runner_is_gone_is_finished_by_anybody() -> None:
    run = replace(holding(assigned(runner="home")), spec=run_view(options=Options(only="home")).spec)
    tries = run.state.job(TRAIN.id)
    assert tries.open is not None
    dead = runner_view("home", private=True, changed=0.0)
    events = events_on(decide(world(run, runners=[dead, runner_view()]), NOW), TRAIN.oid)
    assert isinstance(events[0], Revoked)
    assert [type(event) for event in events[1:]] == [Finished]


def test_a_private_runner_gets_no_job_of_others() -> None:
    decisions = decide(world(run_view(TRAIN), runners=[runner_view("home", private=True)]), NOW)
    assert events_on(decisions, TRAIN.oid) == []


def test_attempts_of_a_run_whose_branch_is_missing_are_kept_for_now() -> None:
    attempt = _attempt(holding(assigned()))
    there = {"otter": Assignments(oid="1", attempts={attempt.key: attempt}, jobs={attempt.key: TRAIN.oid})}
    gone = world(runners=[runner_view()], assignments=there)
    assert decide(replace(gone, kept=frozenset({attempt.run})), NOW).changes == ()
    assert assignments(decide(gone, NOW)) == {"otter": {}}
