"""A new life of a finished run: which jobs it takes, from what they go on, and who is refused."""

from dataclasses import replace

import pytest
from msgspec.structs import replace as with_fields

from dstack.model import keys, runtext
from dstack.model.decide import Decisions, decide
from dstack.model.events import Assigned, Event, Finished, Planned, Resumed, Reused, Revoked, RunFinished
from dstack.model.job import Reason, job_oid
from dstack.model.observation import AppendNotes
from dstack.model.plan import Plan, PlannedJob
from dstack.model.resuming import is_resumed, why_not
from dstack.model.runspec import Desired, Options, Wanted
from dstack.model.states import RunState, fold_job, fold_root
from dstack.model.status import Status
from dstack.model.world import RunView, Sets
from tests.model_values import (
    EPOCH,
    ROOT,
    assigned,
    ended,
    moment,
    planned,
    revoked,
    run_view,
    runner_view,
    spec,
    world,
)

NOW = moment()
STORE = "file:///store"
PREPARE = planned("prepare")
TRAIN = planned("train", PREPARE)
REPORT = planned("report", TRAIN)
AGAIN = Wanted(generation=2)
CLEAN = Wanted(generation=2, clean=True)


def at(digest: str) -> tuple[str, str]:
    return STORE, keys.manifest(digest)


def saved(attempt: int, job: PlannedJob = TRAIN) -> tuple[str, str]:
    return STORE, keys.saved(f"fast-rabbit-1.{ROOT[:12]}", job.id, attempt)


def finish(status: Status, *, seq: int, manifest: str | None = None, generation: int = 1) -> Finished:
    return Finished(
        seq=seq, at=EPOCH, generation=generation, status=status, reason=Reason.EXIT, manifest=manifest, attempt=1
    )


def over(*root: Event) -> tuple[Event, ...]:
    """What the root's note says of a run that failed."""
    begun = Planned(seq=1, at=EPOCH, generation=1, jobs=(), store=STORE)
    end = RunFinished(seq=2, at=EPOCH, generation=1, status=Status.FAILED, reason=Reason.EXIT)
    return (begun, end, *root)


JOBS = (PREPARE, TRAIN, REPORT)
HISTORY: dict[str, list[Event]] = {
    "prepare": [assigned(), finish(Status.DONE, seq=2, manifest="data")],
    "train": [assigned(), finish(Status.FAILED, seq=2, manifest="half")],
    "report": [finish(Status.SKIPPED, seq=1)],
}


def failed_run(wanted: Wanted, *, train: PlannedJob = TRAIN, claims: list[Event] | None = None) -> RunView:
    """`prepare` is DONE, `train` failed with the set `half`, `report` was skipped."""
    jobs = (PREPARE, train, REPORT)
    told = claims if claims is not None else [ended(status=Status.FAILED, manifest="half")]
    state, _ = fold_root(over())
    by_id = {job.id: fold_job(HISTORY[job.job.workflow], {"otter": told if job is train else []}) for job in jobs}
    return run_view(*jobs, state=replace(state, jobs=by_id), wanted=wanted, lines={ROOT: 2, train.oid: 2})


def decided(run: RunView, sets: Sets) -> Decisions:
    return decide(replace(world(run, runners=[runner_view()]), sets=sets), NOW)


def told_on(decisions: Decisions, oid: str) -> list[Event]:
    notes = [change for change in decisions.changes if isinstance(change, AppendNotes)]
    return [event for note in notes for event in note.events.get(oid, ())]


def test_what_failed_and_what_was_skipped_behind_it_goes_on_from_what_was_left() -> None:
    decisions = decided(failed_run(AGAIN), {at("data"): "data", at("half"): "half"})
    (begin,) = told_on(decisions, ROOT)
    assert isinstance(begin, Resumed)
    assert (begin.generation, begin.jobs, begin.seq) == (2, (TRAIN.id, REPORT.id), 3)
    (again,) = told_on(decisions, TRAIN.oid)
    assert isinstance(again, Assigned)
    assert (again.generation, again.attempt, again.restore) == (2, 2, "half")
    assert told_on(decisions, REPORT.oid) == told_on(decisions, PREPARE.oid) == []


def test_the_state_behind_the_event_is_what_everybody_folds_of_it() -> None:
    decisions = decided(failed_run(AGAIN), {at("data"): "data", at("half"): "half"})
    state, generations = fold_root((*over(), *told_on(decisions, ROOT)))
    jobs = {
        job.job.workflow: fold_job(
            [*HISTORY[job.job.workflow], *told_on(decisions, job.oid)], {}, generation=generations.get(job.id, 1)
        )
        for job in JOBS
    }
    assert (state.generation, state.finished) == (2, None)
    assert [jobs[name].generation for name in HISTORY] == [1, 2, 2]
    assert [jobs[name].outcome for name in HISTORY] == [Status.DONE, None, None]
    assert [attempt.number for attempt in jobs["train"].attempts] == [1, 2]


def test_without_what_was_saved_a_job_begins_afresh() -> None:
    (again,) = told_on(decided(failed_run(AGAIN), {at("data"): "data", at("half"): None}), TRAIN.oid)
    assert isinstance(again, Assigned)
    assert again.restore is None


def test_clean_begins_from_nothing_and_asks_for_nothing_that_was_saved() -> None:
    decisions = decided(failed_run(CLEAN), {at("data"): "data"})
    (again,) = told_on(decisions, TRAIN.oid)
    assert isinstance(again, Assigned)
    assert (again.restore, decisions.pointers) == (None, frozenset())


def test_nothing_is_decided_before_what_it_takes_is_known() -> None:
    first = decided(failed_run(AGAIN), {})
    assert (first.changes, first.pointers) == ((), frozenset({at("data")}))
    second = decided(failed_run(AGAIN), {at("data"): "data"})
    assert isinstance(told_on(second, ROOT)[0], Resumed)
    assert told_on(second, TRAIN.oid) == []
    assert second.pointers == frozenset({at("half")})


def test_a_job_that_is_done_runs_again_where_what_others_need_of_it_is_gone() -> None:
    decisions = decided(failed_run(AGAIN), {at("data"): None})
    (begin,) = told_on(decisions, ROOT)
    assert isinstance(begin, Resumed)
    assert begin.jobs == (PREPARE.id, TRAIN.id, REPORT.id)
    (again,) = told_on(decided(failed_run(AGAIN), {at("data"): None}), PREPARE.oid)
    assert isinstance(again, Assigned)
    assert again.attempt == 2


def saving() -> PlannedJob:
    job = with_fields(TRAIN.job, saves={"checkpoint": 60.0})
    return PlannedJob(oid=job_oid(job), job=job)


def test_a_save_while_it_ran_counts_where_its_end_left_nothing() -> None:
    train = saving()
    run = failed_run(AGAIN, train=train, claims=[ended(status=Status.FAILED, manifest=None)])
    run = replace(run, plan=Plan(jobs=(PREPARE, train)))
    sets: dict[tuple[str, str], str | None] = {at("data"): "data"}
    assert decided(run, sets).pointers == frozenset({saved(1, train)})
    (again,) = told_on(decided(run, sets | {saved(1, train): "step-40"}), train.oid)
    assert isinstance(again, Assigned)
    assert again.restore == "step-40"


def lost_run(train: PlannedJob) -> RunView:
    begun = Planned(seq=1, at=EPOCH, generation=1, jobs=(train.oid,), store=STORE)
    state = RunState(planned=begun, jobs={train.id: fold_job([assigned()], {})})
    job = with_fields(train.job, needs=())
    made = PlannedJob(oid=job_oid(job), job=job)
    return run_view(
        made, state=replace(state, jobs={made.id: fold_job([assigned()], {})}), lines={made.oid: 1, ROOT: 1}
    )


def test_after_a_lost_runner_a_job_goes_on_from_its_last_save() -> None:
    run = lost_run(saving())
    (train,) = run.plan.jobs if run.plan else ()
    both = [runner_view(changed=900.0), runner_view("heron")]
    unknown = decide(replace(world(run, runners=both), sets={}), NOW)
    assert unknown.pointers == frozenset({saved(1, train)})
    assert [type(event) for event in told_on(unknown, train.oid)] == [Revoked]
    known = decide(replace(world(run, runners=both), sets={saved(1, train): "step-40"}), NOW)
    _, again = told_on(known, train.oid)
    assert isinstance(again, Assigned)
    assert (again.runner, again.restore) == ("heron", "step-40")


def test_a_save_that_is_not_whole_leaves_the_one_before() -> None:
    train = saving()
    first = Assigned(
        seq=1, at=EPOCH, generation=1, attempt=1, runner="otter", instance="otter-instance", nonce="n", restore=None
    )
    state = fold_job([first, revoked(1, seq=2), with_fields(first, seq=3, attempt=2, restore="step-20")], {})
    begun = Planned(seq=1, at=EPOCH, generation=1, jobs=(train.oid,), store=STORE)
    lone = with_fields(train.job, needs=())
    job = PlannedJob(oid=job_oid(lone), job=lone)
    run = run_view(job, state=RunState(planned=begun, jobs={job.id: state}), lines={job.oid: 3, ROOT: 1})
    both = [runner_view(changed=900.0), runner_view("heron")]
    _, again = told_on(decide(replace(world(run, runners=both), sets={saved(2, job): None}), NOW), job.oid)
    assert isinstance(again, Assigned)
    assert again.restore == "step-20"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"state": RunState()}, "it has not ended yet"),
        ({"plan": None}, "can't be planned"),
        ({"spec": spec(options=Options(only="local-1"))}, "it ran with --local"),
    ],
    ids=["unfinished", "unplanned", "local"],
)
def test_what_can_not_go_on_says_why_and_is_left_alone(change: dict[str, object], why: str) -> None:
    run = replace(failed_run(AGAIN), **change)  # type: ignore[arg-type]
    assert why in (why_not(run) or "")
    assert not is_resumed(run)


def test_a_run_that_is_done_has_nothing_to_resume() -> None:
    run = failed_run(AGAIN)
    done = {job: replace(state, finished=finish(Status.DONE, seq=9)) for job, state in run.state.jobs.items()}
    assert "all its jobs are DONE" in (why_not(replace(run, state=replace(run.state, jobs=done))) or "")


@pytest.mark.parametrize("generation", [1, 3, 7])
def test_a_wish_for_another_generation_than_the_next_changes_nothing(generation: int) -> None:
    assert decided(failed_run(Wanted(generation=generation)), {}).changes == ()


def test_a_stop_that_comes_before_the_answer_stops_the_new_life() -> None:
    run = failed_run(Wanted(generation=2, desired=Desired.STOP))
    decisions = decided(run, {at("data"): "data", at("half"): "half"})
    ends = [event for job in (TRAIN, REPORT) for event in told_on(decisions, job.oid)]
    assert [(end.status, end.generation) for end in ends if isinstance(end, Finished)] == [(Status.STOPPED, 2)] * 2
    assert isinstance(told_on(decisions, ROOT)[0], Resumed)
    assert isinstance(told_on(decisions, ROOT)[1], RunFinished)


def test_a_job_that_was_reused_stays_so() -> None:
    run = failed_run(AGAIN)
    stood_in = Reused(seq=1, at=EPOCH, generation=1, run="r.0", job="j", manifest="data")
    jobs = {**run.state.jobs, PREPARE.id: fold_job([stood_in], {})}
    decisions = decided(replace(run, state=replace(run.state, jobs=jobs)), {at("data"): "data", at("half"): "half"})
    (begin,) = told_on(decisions, ROOT)
    assert isinstance(begin, Resumed)
    assert begin.jobs == (TRAIN.id, REPORT.id)


def test_the_wish_is_written_down_and_read_again() -> None:
    text = runtext.to_text(spec(), with_fields(CLEAN, root="a" * 40))
    assert runtext.from_text(text.encode())[1] == with_fields(CLEAN, root="a" * 40)
