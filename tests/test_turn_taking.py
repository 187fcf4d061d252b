"""Where jobs may go by what runners offer, and how many of a workflow run at once."""

from dataclasses import replace

import msgspec

from dstack.model.decide import Decisions, decide
from dstack.model.events import Finished
from dstack.model.job import Reason, Resources, Volume, job_oid
from dstack.model.observation import SetAssignments
from dstack.model.plan import Plan, PlannedJob
from dstack.model.runspec import Options
from dstack.model.states import RunState, fold_job
from dstack.model.status import Status
from dstack.model.world import RunnerView, RunView
from tests.model_values import assigned, ended, finished, moment, planned, run_view, runner_view, started, world
from tests.test_decide import events_on

NOW = moment()


def needing(job: PlannedJob, **changes: object) -> PlannedJob:
    """The same job with other fields."""
    changed = msgspec.structs.replace(job.job, **changes)
    return PlannedJob(oid=job_oid(changed), job=changed)


def offering(name: str, *volumes: str, interruptible: bool = False) -> RunnerView:
    """A large runner with these volumes."""
    view = runner_view(name, cpu=16.0)
    changed = msgspec.structs.replace(view.registration, volumes=volumes, interruptible=interruptible)
    return replace(view, registration=changed)


def holders(decisions: Decisions) -> dict[str, str]:
    """Runner by job."""
    changes = [change for change in decisions.changes if isinstance(change, SetAssignments)]
    return {one.job: change.runner for change in changes for one in change.attempts.values()}


def with_volumes(name: str, *names: str) -> PlannedJob:
    return needing(planned(name), volumes=tuple(Volume(name=one, path=one) for one in names))


def test_a_job_goes_where_all_its_volumes_are_offered() -> None:
    both, one, other = with_volumes("both", "data", "models"), with_volumes("one", "data"), with_volumes("other", "x")
    runners = [offering("otter", "data"), offering("raven", "models", "data")]
    decisions = decide(world(run_view(both, one, other), runners=runners), NOW)
    assert holders(decisions)[both.id] == "raven"
    assert one.id in holders(decisions)
    assert decisions.waiting == {
        other.id: "no live runner can take it: otter offers no volume x; raven offers no volume x"
    }


def test_only_a_job_that_says_so_goes_to_a_machine_that_can_be_taken_away() -> None:
    bold = needing(planned("bold"), resources=Resources(interruptible=True))
    runners = [offering("otter", interruptible=True)]
    decisions = decide(world(run_view(bold, planned("plain")), runners=runners), NOW)
    assert holders(decisions) == {bold.id: "otter"}
    why = "no live runner can take it: otter can be taken away at any time, and the job does not say"
    assert list(decisions.waiting.values()) == [f"{why} `interruptible: true`"]
    assert holders(decide(world(run_view(bold), runners=[offering("raven")]), NOW)) == {bold.id: "raven"}


def sweep(count: int, most: int) -> list[PlannedJob]:
    jobs = [needing(planned("sweep"), matrix={"seed": str(number)}, max_parallel=most) for number in range(count)]
    assert len({job.id for job in jobs}) == count
    return jobs


def placed(run: RunView) -> Decisions:
    return decide(world(run, runners=[offering("otter")]), NOW)


def test_no_more_of_a_workflow_run_at_once_than_it_says() -> None:
    jobs = sweep(5, 2)
    decisions = placed(run_view(*jobs, planned("free")))
    assert set(holders(decisions)) == {jobs[0].id, jobs[1].id, planned("free").id}
    assert decisions.waiting == {job.id: "waits for its turn: 2 of sweep run at once" for job in jobs[2:]}


def test_what_has_ended_makes_room_for_the_next_and_what_is_open_counts() -> None:
    jobs = sweep(4, 2)
    done = fold_job([assigned(), finished(seq=2)], {"otter": [ended()]})
    running = fold_job([assigned()], {"otter": [started()]})
    run = run_view(*jobs, state=RunState(jobs={jobs[0].id: done, jobs[1].id: running}))
    decisions = placed(run)
    assert set(holders(decisions)) == {jobs[1].id, jobs[2].id}
    assert list(decisions.waiting) == [jobs[3].id]


def test_runs_do_not_count_each_others_jobs() -> None:
    first, second = sweep(1, 1)[0], needing(sweep(1, 1)[0], root="b" * 40)
    views = [run_view(first, name="aa"), run_view(second, name="bb")]
    assert set(holders(decide(world(*views, runners=[offering("otter")]), NOW))) == {first.id, second.id}


def test_one_at_a_time_is_said_in_the_singular() -> None:
    jobs = sweep(2, 1)
    view = replace(run_view(*jobs), plan=Plan(jobs=tuple(jobs)))
    assert list(placed(view).waiting.values()) == ["waits for its turn: 1 of sweep runs at once"]


def test_a_local_job_that_its_machine_can_never_take_fails_at_once_with_the_reason() -> None:
    view, fits = with_volumes("use", "data"), planned("fits")
    run = run_view(view, fits, options=Options(only="home"))
    there = replace(world(run, runners=[offering("home", "models")]), only=run.key)
    decisions = decide(there, NOW)
    assert holders(decisions) == {fits.id: "home"}
    (event,) = events_on(decisions, view.oid)
    assert isinstance(event, Finished)
    assert (event.status, event.reason) == (Status.FAILED, Reason.INVALID)
    assert event.message == "it can't run with --local: this machine offers no volume data"
    # Before its runner has registered, nobody knows.
    assert not [
        one for one in events_on(decide(replace(there, runners={}), NOW), view.oid) if isinstance(one, Finished)
    ]
