"""What a turn decides about reuse: nothing is placed before it was looked up, and an answer ends a job at once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
import pytest

from dstack.model.decide import Decisions, decide
from dstack.model.events import Assigned, Event, Finished, JobSummary, Reused, RunFinished
from dstack.model.job import Reason
from dstack.model.keys import log
from dstack.model.observation import AppendNotes
from dstack.model.plan import PlannedJob
from dstack.model.reuse import Answer, Lookup, Origin, parts_of
from dstack.model.runspec import Code, Desired, Options, Via, Wanted
from dstack.model.states import RunState, fold_job
from dstack.model.status import Status
from dstack.model.world import RunView, World
from tests.model_values import ROOT, assigned, ended, moment, planned, revoked, run_view, runner_view, world

NOW = moment()
PREPARE = planned("prepare")
TRAIN = planned("train", PREPARE)
BOTH = (PREPARE, TRAIN)
CONTENTS = {"prepare": "1", "train": "2"}
OLD = "old-rabbit-1.bbbbbbbbbbbb"
PREPARED = Answer(run=OLD, job="b" * 12, manifest="9" * 64, log=log(OLD, "b" * 12, 1))
TRAINED = Answer(run=OLD, job="c" * 12)

PREPARE_KEY = parts_of(PREPARE.job, "1", ()).key
TRAIN_KEY = parts_of(TRAIN.job, "2", (Origin(workflow="prepare", manifest="9" * 64),)).key


def known(view: RunView, contents: Mapping[str, str] = CONTENTS) -> RunView:
    code = Code(commit="c" * 40, snapshot="d" * 40, contents=dict(contents))
    return replace(view, spec=msgspec.structs.replace(view.spec, code=code))


def turn(view: RunView, cache: Mapping[str, Answer | None] | None) -> Decisions:
    return decide(replace(world(view, runners=[runner_view()]), cache=cache), NOW)


def on(decisions: Decisions, oid: str) -> list[Event]:
    return [event for one in decisions.changes if isinstance(one, AppendNotes) for event in one.events.get(oid, ())]


def kinds(decisions: Decisions, oid: str) -> list[type]:
    return [type(event) for event in on(decisions, oid)]


def test_a_ready_job_is_looked_up_before_it_is_placed() -> None:
    decisions = turn(known(run_view(*BOTH)), {})
    assert decisions.lookups == {PREPARE.oid: Lookup(store="file:///store", key=PREPARE_KEY)}
    assert on(decisions, PREPARE.oid) == []
    assert decisions.unsure == {PREPARE.oid}


def test_what_nothing_answers_is_placed_and_asked_about_no_more() -> None:
    decisions = turn(known(run_view(*BOTH)), {PREPARE.oid: None})
    assert kinds(decisions, PREPARE.oid) == [Assigned]
    assert decisions.lookups == {}
    assert decisions.unsure == {PREPARE.oid}


def test_an_answer_ends_the_job_and_what_depends_on_it_is_looked_up_in_the_same_turn() -> None:
    decisions = turn(known(run_view(*BOTH)), {PREPARE.oid: PREPARED})
    (event,) = on(decisions, PREPARE.oid)
    assert isinstance(event, Reused)
    assert (event.run, event.job, event.manifest, event.log) == (OLD, "b" * 12, "9" * 64, PREPARED.log)
    assert event.message == f"reused from old-rabbit-1 ({'b' * 12})"
    assert decisions.lookups == {TRAIN.oid: Lookup(store="file:///store", key=TRAIN_KEY)}
    assert on(decisions, TRAIN.oid) == []


def test_a_whole_pipeline_is_finished_in_one_turn() -> None:
    decisions = turn(known(run_view(*BOTH)), {PREPARE.oid: PREPARED, TRAIN.oid: TRAINED})
    root = on(decisions, ROOT)
    end = next(event for event in root if isinstance(event, RunFinished))
    assert (end.status, end.reason, end.counts) == (Status.DONE, Reason.OK, {"DONE": 2})
    lines = [event.message for event in root if isinstance(event, JobSummary)]
    assert lines == [
        f"prepare: DONE, reused from old-rabbit-1 ({'b' * 12})",
        f"train: DONE, reused from old-rabbit-1 ({'c' * 12})",
    ]
    state = fold_job(on(decisions, PREPARE.oid), {})
    assert (state.outcome, state.manifest) == (Status.DONE, "9" * 64)


def test_what_was_made_by_a_reused_job_is_what_the_next_one_gets() -> None:
    decisions = turn(known(run_view(*BOTH)), {PREPARE.oid: PREPARED, TRAIN.oid: None})
    assert kinds(decisions, TRAIN.oid) == [Assigned]
    (held,) = [one for change in decisions.changes if hasattr(change, "attempts") for one in change.attempts.values()]
    assert [(one.job, one.manifest) for one in held.inputs] == [(PREPARE.id, "9" * 64)]


def test_without_somebody_who_looks_nothing_is_reused() -> None:
    decisions = turn(known(run_view(*BOTH)), None)
    assert kinds(decisions, PREPARE.oid) == [Assigned]
    assert (decisions.lookups, decisions.answers) == ({}, {})


def test_a_run_whose_files_have_no_digest_reuses_nothing() -> None:
    assert turn(run_view(*BOTH), {}).lookups == {}


@pytest.mark.parametrize(
    ("options", "via", "looked_up"),
    [(Options(cache=False), Via.CLI, False), (Options(), Via.SCHEDULE, True), (Options(), Via.CLI, True)],
)
def test_the_dependency_of_a_scheduled_run_is_looked_up_and_nothing_without_a_cache(
    options: Options, via: Via, *, looked_up: bool
) -> None:
    view = known(run_view(*BOTH, options=options))
    view = replace(view, spec=msgspec.structs.replace(view.spec, via=via))
    assert bool(turn(view, {}).lookups) is looked_up


def test_the_named_workflow_of_a_scheduled_run_always_runs() -> None:
    view = known(run_view(*BOTH))
    view = replace(view, spec=msgspec.structs.replace(view.spec, via=Via.SCHEDULE))
    decisions = turn(view, {PREPARE.oid: PREPARED})
    assert decisions.lookups == {}
    assert kinds(decisions, TRAIN.oid) == [Assigned]


def test_a_workflow_that_forbids_it_runs() -> None:
    job = msgspec.structs.replace(PREPARE.job, cache=False)
    one = PlannedJob(oid=PREPARE.oid, job=job)
    assert kinds(turn(known(run_view(one)), {}), one.oid) == [Assigned]


def with_history(*events: Event, claims: Sequence[Event] = (), wanted: Wanted | None = None) -> RunView:
    state = RunState(jobs={PREPARE.id: fold_job(events, {"otter": claims})})
    return known(run_view(PREPARE, state=state, lines={PREPARE.oid: len(events)}, wanted=wanted))


def test_a_second_attempt_is_not_looked_up_again() -> None:
    decisions = turn(with_history(assigned(), revoked()), {})
    assert decisions.lookups == {}
    assert kinds(decisions, PREPARE.oid) == [Assigned]


def test_what_was_stopped_is_not_looked_up() -> None:
    decisions = turn(with_history(wanted=Wanted(desired=Desired.STOP)), {})
    assert decisions.lookups == {}
    assert kinds(decisions, PREPARE.oid) == [Finished]


def test_what_is_done_answers_its_key_from_now_on() -> None:
    view = with_history(assigned(), claims=[ended(manifest="8" * 64)])
    decisions = turn(view, {})
    answer = Answer(run=str(view.key), job=PREPARE.id, manifest="8" * 64, log=log(str(view.key), PREPARE.id, 1))
    assert decisions.answers == {Lookup(store="file:///store", key=PREPARE_KEY): answer}


def test_what_is_done_without_looking_answers_others_too() -> None:
    view = with_history(assigned(), claims=[ended()])
    view = replace(view, spec=msgspec.structs.replace(view.spec, options=Options(cache=False)))
    assert len(turn(view, {}).answers) == 1


@pytest.mark.parametrize("status", [Status.FAILED, Status.STOPPED, Status.ABORTED])
def test_what_is_not_done_answers_nothing(status: Status) -> None:
    view = with_history(assigned(), claims=[ended(status=status, reason=Reason.EXIT)])
    decisions = turn(view, {})
    assert kinds(decisions, PREPARE.oid) == [Finished]
    assert decisions.answers == {}


def test_a_reused_job_is_no_new_answer() -> None:
    assert turn(known(run_view(*BOTH)), {PREPARE.oid: PREPARED, TRAIN.oid: TRAINED}).answers == {}


def test_a_run_looks_in_the_store_its_plan_names_wherever_that_has_moved() -> None:
    view = known(run_view(PREPARE))
    there: World = replace(
        world(view, runners=[runner_view()]), cache={}, store="file:///new", stores={"file:///store": "file:///new"}
    )
    (lookup,) = decide(there, NOW).lookups.values()
    assert lookup.store == "file:///new"
