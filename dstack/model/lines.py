"""Runs and jobs as lines: what commands show, what `--json` prints (SPEC section 4), what the archive keeps."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from dstack.model import keys
from dstack.model.events import Finished, Reused
from dstack.model.job import Job, Need, Reason
from dstack.model.observation import BrokenRun, RunRecord
from dstack.model.plan import PlannedJob
from dstack.model.refs import RunKey
from dstack.model.resuming import awaited
from dstack.model.reuse import run_name
from dstack.model.runspec import Trigger, Via
from dstack.model.states import AttemptState, JobState, RunState, desired_of, job_status, run_reason, run_status
from dstack.model.status import Status
from dstack.model.world import RunView


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Whose result a reused job took. `key` is the run's name and root, for a name that was used again."""

    run: str
    job: str
    key: str = ""


class JobLine(msgspec.Struct, frozen=True, kw_only=True):
    """A job. `logs` and `artifacts` are keys in the store; `attempt` is None before the first.

    `image` is the digest of the image that was used.
    """

    job: str
    workflow: str
    matrix: dict[str, str]
    variables: dict[str, str]
    status: Status
    reason: Reason | None
    message: str
    exit_code: int | None
    attempt: int | None
    runner: str | None
    reused_from: Origin | None
    needs: tuple[str, ...]
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    logs: str | None
    artifacts: str | None
    warnings: tuple[str, ...] = ()
    image: str | None = None

    @property
    def title(self) -> str:
        """`train`, or `train[lr=0.1]`."""
        values = ",".join(f"{name}={value}" for name, value in sorted(self.matrix.items()))
        return f"{self.workflow}[{values}]" if values else self.workflow


class RunLine(msgspec.Struct, frozen=True, kw_only=True):
    """A run. `problem` is set for a branch that can't be read or is another repository's; `status` is then None.

    `overrides` are the variables that were given on the command line; `store` is where its bytes are, once planned;
    `unreadable` are sentences about records of it that were passed over. `archived`: it has left for the archive.
    `via` is what made it, and `trigger` what happened where that was no user.
    """

    run: str
    root: str
    workflow: str
    status: Status | None
    reason: Reason | None
    message: str
    tags: tuple[str, ...]
    submitted_at: datetime | None
    submitted_by: str
    finished_at: datetime | None
    generation: int
    jobs: tuple[JobLine, ...]
    overrides: dict[str, str] = {}
    problem: str = ""
    store: str | None = None
    only: str | None = None
    unreadable: tuple[str, ...] = ()
    archived: bool = False
    via: Via | None = None
    trigger: Trigger | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status is None or self.status.finished

    @property
    def key(self) -> RunKey:
        """Its name and root."""
        return RunKey.of(self.run, self.root)

    @property
    def user(self) -> str:
        """Who submitted it, without the address."""
        return self.submitted_by.partition(" <")[0] or self.submitted_by


def run_line(view: RunView) -> RunLine:
    """The line of a run that could be read. One that is to be resumed shows as if that were done."""
    view = awaited(view)
    jobs = _job_lines(view)
    status = run_status(view.state, (job.status for job in jobs))
    if view.problem and not view.state.finished:
        status = Status.SUBMITTED
    return RunLine(
        run=view.key.name,
        root=view.root,
        workflow=view.spec.workflow,
        status=status,
        reason=_reason(view.state, jobs, status),
        message=(view.state.finished.message if view.state.finished else "") or view.problem,
        tags=(),
        submitted_at=view.spec.submitted_at,
        submitted_by=view.spec.submitted_by,
        finished_at=view.state.finished.at if view.state.finished else None,
        generation=view.state.generation,
        jobs=jobs,
        overrides={name: value for section in view.spec.variables.values() for name, value in section.items()},
        store=view.state.planned.store if view.state.planned else None,
        only=view.spec.options.only,
        via=view.spec.via,
        trigger=view.spec.trigger,
    )


def odd_line(record: RunRecord | BrokenRun) -> RunLine:
    """The line of a run that is never executed here: broken, or another dstack repository's."""
    foreign = isinstance(record, RunRecord)
    problem = "it belongs to another dstack repository (a fork?)" if foreign else ""
    return RunLine(
        run=record.name,
        root=record.root if isinstance(record, RunRecord) else "",
        workflow=record.spec.workflow if isinstance(record, RunRecord) else "",
        status=None,
        reason=None,
        message="",
        tags=(),
        submitted_at=record.spec.submitted_at if isinstance(record, RunRecord) else None,
        submitted_by=record.spec.submitted_by if isinstance(record, RunRecord) else "",
        finished_at=None,
        generation=1,
        jobs=(),
        problem=problem if isinstance(record, RunRecord) else record.problem,
    )


def _reason(state: RunState, jobs: tuple[JobLine, ...], status: Status) -> Reason | None:
    if state.finished:
        return state.finished.reason
    return run_reason(((job.status, job.reason or Reason.OK) for job in jobs), status) if status.finished else None


def _job_lines(view: RunView) -> tuple[JobLine, ...]:
    lines: dict[str, JobLine] = {}
    for planned in view.plan.jobs if view.plan else ():
        lines[planned.id] = _job_line(view, planned, lines)
    return tuple(lines.values())


def _job_line(view: RunView, planned: PlannedJob, before: Mapping[str, JobLine]) -> JobLine:
    job, state = planned.job, view.state.job(planned.id)
    needed = [before[need.job] for need in job.needs if need.job in before]
    ready = all(line.status is Status.DONE for line in needed)
    status = job_status(state, desired_of(planned.id, view.wanted, view.state.generation), ready=ready)
    if view.state.finished and not status.finished:
        status = view.state.finished.status
    attempt = _shown_attempt(state)
    finished = state.finished if isinstance(state.finished, Finished) else None
    reused = state.finished if isinstance(state.finished, Reused) else None
    manifest = state.manifest or (attempt.ended.manifest if attempt and attempt.ended else None)
    return JobLine(
        job=planned.id,
        workflow=job.workflow,
        matrix=job.matrix,
        variables=job.variables,
        status=status,
        reason=finished.reason if finished else Reason.OK if reused else None,
        message=finished.message if finished else "" if reused else _waiting(status, job, before),
        exit_code=finished.exit_code if finished else None,
        attempt=attempt.number if attempt else None,
        runner=attempt.assigned.runner if attempt else None,
        reused_from=Origin(run=run_name(reused.run), job=reused.job, key=reused.run) if reused else None,
        needs=tuple(need.job for need in job.needs),
        queued_at=_queued_at(view.state, needed) if ready else None,
        started_at=_started_at(attempt),
        finished_at=state.finished.at if state.finished else None,
        logs=keys.log(str(view.key), planned.id, attempt.number) if attempt else reused.log if reused else None,
        artifacts=keys.manifest(manifest) if manifest else None,
        warnings=attempt.ended.warnings if attempt and attempt.ended else (),
        image=attempt.ended.image if attempt and attempt.ended else None,
    )


def _shown_attempt(state: JobState) -> AttemptState | None:
    """The last attempt of this generation, or of an earlier one while this has none."""
    tried = state.tried or state.attempts
    return tried[-1] if tried else None


def _queued_at(state: RunState, needed: list[JobLine]) -> datetime | None:
    ends = [line.finished_at for line in needed if line.finished_at]
    return max(ends, default=state.planned.at if state.planned else None)


def _started_at(attempt: AttemptState | None) -> datetime | None:
    if attempt is None:
        return None
    if attempt.started:
        return attempt.started.at
    return attempt.ended.times.running if attempt.ended else None


def _waiting(status: Status, job: Job, before: Mapping[str, JobLine]) -> str:
    """What a job waits for that only other jobs can end; what runners keep it waiting is found out afresh each time."""
    if status is not Status.SUBMITTED:
        return ""
    open_needs = [need for need in job.needs if not _done(need, before)]
    names = sorted({need.workflow for need in open_needs})
    return "waits for " + ", ".join(names) if names else ""


def _done(need: Need, before: Mapping[str, JobLine]) -> bool:
    return need.job in before and before[need.job].status is Status.DONE
