"""Who is given jobs of forks, and what becomes of a run that a runner, or the controller, doesn't trust."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from dstack.model.decide import Decisions, decide
from dstack.model.events import Assigned, Ended, Event, Finished, Planned, Revoked, RunFinished
from dstack.model.job import Reason
from dstack.model.observation import AppendNotes, SetAssignments
from dstack.model.runspec import Desired, Trigger, TriggerEvent, Wanted
from dstack.model.states import RunState, fold_job
from dstack.model.status import Status
from dstack.model.world import RunnerView, RunView
from tests.model_values import EPOCH, ROOT, assigned, ended, moment, planned, run_view, runner_view, world

NOW = moment()
TRAIN = planned("train")
WHY = "it is not signed"
REFUSED = msgspec.structs.replace(ended(status=Status.FAILED, reason=Reason.SIGNATURE), message=WHY)


def history(*events: Event, claims: Sequence[Event] = ()) -> RunView:
    plan = Planned(seq=1, at=EPOCH, generation=1, jobs=(TRAIN.oid,), store="file:///store")
    state = RunState(planned=plan, jobs={TRAIN.id: fold_job(events, {"otter": claims})})
    return run_view(TRAIN, state=state, lines={TRAIN.oid: len(events), ROOT: 1})


def on(decisions: Decisions, oid: str = TRAIN.oid) -> list[Event]:
    notes = [change for change in decisions.changes if isinstance(change, AppendNotes)]
    return [event for change in notes for event in change.events.get(oid, ())]


def placed_on(decisions: Decisions) -> list[str]:
    return [event.runner for event in on(decisions) if isinstance(event, Assigned)]


def of_fork(run: RunView) -> RunView:
    trigger = Trigger(event=TriggerEvent.PULL_REQUEST, ref="refs/pull/7/head", commit="c" * 40, key="k", fork=True)
    return replace(run, spec=msgspec.structs.replace(run.spec, trigger=trigger))


def open_to_forks(name: str) -> RunnerView:
    view = runner_view(name)
    return replace(view, registration=msgspec.structs.replace(view.registration, forks=True))


def test_work_from_a_fork_waits_for_a_runner_that_allows_it_and_says_so() -> None:
    run = of_fork(run_view(TRAIN))
    decisions = decide(world(run, runners=[runner_view("otter")]), NOW)
    assert placed_on(decisions) == []
    assert "otter runs nothing from forks" in decisions.waiting[TRAIN.id]
    assert placed_on(decide(world(run, runners=[runner_view("otter"), open_to_forks("panda")]), NOW)) == ["panda"]
    assert placed_on(decide(world(run_view(TRAIN), runners=[open_to_forks("panda")]), NOW)) == ["panda"]


def test_a_job_refused_for_its_signature_by_the_only_runner_has_failed() -> None:
    decisions = decide(world(history(assigned(), claims=[REFUSED]), runners=[runner_view("otter")]), NOW)
    (end,) = on(decisions)
    assert isinstance(end, Finished)
    assert (end.status, end.reason, end.message) == (Status.FAILED, Reason.SIGNATURE, "it is not signed")


def test_a_job_refused_by_one_runner_is_offered_to_each_other_once() -> None:
    both = [runner_view("otter"), runner_view("panda")]
    first, then = on(decide(world(history(assigned(), claims=[REFUSED]), runners=both), NOW))
    assert isinstance(first, Revoked)
    assert (first.reason, first.begun) == (Reason.SIGNATURE, False)
    assert isinstance(then, Assigned)
    assert (then.runner, then.attempt) == ("panda", 2)
    again = msgspec.structs.replace(REFUSED, attempt=2)
    plan = Planned(seq=1, at=EPOCH, generation=1, jobs=(TRAIN.oid,), store="file:///store")
    folded = fold_job([assigned(), first, then], {"otter": [REFUSED], "panda": [_as_of(again, then)]})
    run = run_view(TRAIN, state=RunState(planned=plan, jobs={TRAIN.id: folded}), lines={TRAIN.oid: 3, ROOT: 1})
    (end,) = on(decide(world(run, runners=both), NOW))
    assert isinstance(end, Finished)
    assert (end.reason, end.attempt, end.runner) == (Reason.SIGNATURE, 2, "panda")


def _as_of(claim: Ended, given: Assigned) -> Ended:
    return msgspec.structs.replace(claim, instance=given.instance, nonce=given.nonce)


def test_a_refused_job_that_was_asked_to_stop_is_not_offered_again() -> None:
    run = replace(history(assigned(), claims=[REFUSED]), wanted=Wanted(root=ROOT, generation=1, desired=Desired.STOP))
    (end,) = on(decide(world(run, runners=[runner_view("otter"), runner_view("panda")]), NOW))
    assert isinstance(end, Finished)


def test_who_refused_one_job_of_a_run_is_asked_last_about_the_others() -> None:
    other = planned("other")
    folded = fold_job([assigned()], {"otter": [REFUSED]})
    run = run_view(TRAIN, other, state=RunState(jobs={TRAIN.id: folded}))
    decisions = decide(world(run, runners=[runner_view("otter"), runner_view("panda")]), NOW)
    (given,) = [event for event in on(decisions, other.oid) if isinstance(event, Assigned)]
    assert given.runner == "panda"


def test_a_run_the_controller_does_not_trust_fails_before_it_is_planned() -> None:
    run = replace(run_view(TRAIN), distrust="commit abc: it is not signed")
    decisions = decide(world(run, runners=[runner_view()]), NOW)
    (end,) = on(decisions, ROOT)
    assert isinstance(end, RunFinished)
    assert (end.status, end.reason, end.message) == (Status.FAILED, Reason.SIGNATURE, "commit abc: it is not signed")
    assert on(decisions) == []


def test_a_run_that_is_distrusted_later_ends_with_all_its_jobs() -> None:
    run = replace(history(assigned()), distrust="commit abc: it is not signed")
    decisions = decide(world(run, runners=[runner_view()]), NOW)
    (end,) = on(decisions)
    assert isinstance(end, Finished)
    assert (end.status, end.reason, end.attempt, end.runner) == (Status.FAILED, Reason.SIGNATURE, 1, "otter")
    verdict = on(decisions, ROOT)[0]
    assert isinstance(verdict, RunFinished)
    assert verdict.reason is Reason.SIGNATURE
    assert not [change for change in decisions.changes if isinstance(change, SetAssignments) and change.attempts]


def test_a_finished_run_is_not_resumed_by_a_commit_that_is_not_trusted() -> None:
    over = RunFinished(
        seq=2, at=EPOCH, message="", generation=1, status=Status.FAILED, reason=Reason.EXIT, counts={"FAILED": 1}
    )
    run = history(assigned(), claims=[ended(status=Status.FAILED, reason=Reason.EXIT, exit_code=1)])
    run = replace(run, state=replace(run.state, finished=over), wanted=Wanted(root=ROOT, generation=2))
    assert decide(world(run, runners=[runner_view()]), NOW).changes
    assert decide(world(replace(run, distrust="no"), runners=[runner_view()]), NOW).changes == ()
