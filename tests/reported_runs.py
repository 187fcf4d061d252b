"""Runs as a forge is told of them: views with a trigger, in any state."""

from collections.abc import Sequence
from datetime import timedelta

from msgspec.structs import replace as with_fields

from dstack.model.events import Finished, Planned, RunFinished
from dstack.model.job import Job, Reason, job_oid
from dstack.model.plan import Plan, PlannedJob
from dstack.model.refs import RunKey
from dstack.model.runspec import Trigger, TriggerEvent, Wanted
from dstack.model.states import AttemptState, JobState, RunState
from dstack.model.status import Status
from dstack.model.world import RunView
from tests.model_values import EPOCH, assigned, spec, started

COMMIT = "c" * 40
STORE = "file:///store"


def job_of(workflow: str = "train", *, metrics: Sequence[str] = (), **matrix: str) -> PlannedJob:
    """A job, of a combination."""
    job = Job(root="a" * 40, workflow=workflow, commands=("true",), matrix=matrix, metrics=tuple(metrics))
    return PlannedJob(oid=job_oid(job), job=job)


def done(status: Status = Status.DONE, *, exit_code: int | None = None, manifest: str | None = None) -> JobState:
    """A job that ran for 75 seconds."""
    reason = {Status.DONE: Reason.OK, Status.FAILED: Reason.EXIT}.get(status, Reason.STOPPED)
    ended = Finished(
        seq=2,
        at=EPOCH + timedelta(seconds=75),
        generation=1,
        status=status,
        reason=reason,
        attempt=1,
        runner="otter",
        exit_code=exit_code,
        manifest=manifest,
    )
    return JobState(attempts=(AttemptState(assigned=assigned(), started=started()),), finished=ended)


RUNNING = JobState(attempts=(AttemptState(assigned=assigned(), started=started()),))


def view(
    *jobs: tuple[PlannedJob, JobState | None],
    name: str = "fast-rabbit-1",
    verdict: Status | None = None,
    reason: Reason = Reason.OK,
    commit: str = COMMIT,
    pull: int | None = None,
    later: float = 0.0,
    event: TriggerEvent = TriggerEvent.PUSH,
) -> RunView:
    """A run that a trigger made, `later` seconds after the first."""
    at = EPOCH + timedelta(seconds=later)
    ended = (
        RunFinished(seq=9, at=at + timedelta(seconds=90), generation=1, status=verdict, reason=reason)
        if verdict
        else None
    )
    trigger = Trigger(event=event, ref="refs/heads/main", commit=commit, key="k", by="Ada <ada@example.org>", pull=pull)
    workflow = jobs[0][0].job.workflow if jobs else "train"
    root = name.encode().hex().ljust(40, "0")[:40]
    return RunView(
        key=RunKey.of(name, root),
        root=root,
        spec=with_fields(spec(name), workflow=workflow, submitted_at=at, trigger=trigger),
        wanted=Wanted(),
        plan=Plan(jobs=tuple(job for job, _ in jobs)),
        state=RunState(
            planned=Planned(seq=1, at=at, generation=1, jobs=tuple(job.oid for job, _ in jobs), store=STORE),
            finished=ended,
            jobs={job.id: state for job, state in jobs if state},
        ),
    )
