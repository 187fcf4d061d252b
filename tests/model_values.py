"""Small makers of model values for tests: everything a test doesn't care about has a plain default."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from dstack.model.events import Assigned, Ended, Finished, Revoked, Started, Times
from dstack.model.job import Gpus, Job, Need, Reason, Resources, Retry, job_oid
from dstack.model.liveness import Watched
from dstack.model.observation import Assignments
from dstack.model.plan import Plan, PlannedJob
from dstack.model.pool import Capacity, Heartbeat, Phase, Registration, RunnerState
from dstack.model.refs import RunKey
from dstack.model.runspec import Code, Options, RunSpec, Wanted
from dstack.model.states import RunState
from dstack.model.status import Status
from dstack.model.world import Moment, RunnerView, RunView, World

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
ROOT = "a" * 40
GIB = 2**30


def moment(ticks: float = 1000.0) -> Moment:
    """The wall clock and the ticks go together."""
    return Moment(wall=EPOCH + timedelta(seconds=ticks), ticks=ticks)


def planned(
    workflow: str,
    *needs: PlannedJob,
    root: str = ROOT,
    retry: Retry | None = None,
    cpu: float | None = None,
    memory: int | None = None,
    image: str | None = None,
    timeout: float | None = None,
    gpu: Gpus | None = None,
    labels: tuple[str, ...] = (),
) -> PlannedJob:
    """A job that needs others."""
    job = Job(
        root=root,
        workflow=workflow,
        commands=("true",),
        needs=tuple(Need(job=need.id, workflow=need.job.workflow) for need in needs),
        retry=retry,
        resources=Resources(cpu=cpu, memory=memory, gpu=gpu),
        image=image,
        timeout=timeout,
        labels=labels,
    )
    return PlannedJob(oid=job_oid(job), job=job)


def spec(run: str = "fast-rabbit-1", options: Options | None = None) -> RunSpec:
    """A run's fixed part."""
    return RunSpec(
        repository="repo",
        run=run,
        workflow="train",
        code=Code(commit="c" * 40, snapshot="d" * 40),
        submitted_by="ada",
        submitted_at=EPOCH,
        options=options or Options(),
        nonce=run,
    )


def run_view(
    *jobs: PlannedJob,
    name: str = "fast-rabbit-1",
    state: RunState | None = None,
    wanted: Wanted | None = None,
    options: Options | None = None,
    lines: Mapping[str, int] | None = None,
) -> RunView:
    """A run with these jobs."""
    return RunView(
        key=RunKey.of(name, ROOT),
        root=ROOT,
        spec=spec(name, options),
        wanted=wanted or Wanted(),
        plan=Plan(jobs=jobs),
        state=state or RunState(),
        lines=lines or {},
    )


def registration(
    name: str = "otter", *, cpu: float = 2.0, private: bool = False, state: RunnerState = RunnerState.LIVE
) -> Registration:
    """A runner that does all."""
    return Registration(
        repository="repo",
        runner=name,
        instance=f"{name}-instance",
        start="start",
        host="host",
        capacity=Capacity(cpu=cpu, memory=8 * GIB),
        executors=("process", "docker"),
        store="file:///store",
        private=private,
        state=state,
        at=EPOCH,
    )


def heartbeat(
    name: str = "otter", *, beats: int = 1, polls: int = 1, attempts: Sequence[str] = (), assignment: str | None = None
) -> Heartbeat:
    """A heartbeat that names these attempts as running."""
    return Heartbeat(
        runner=name,
        instance=f"{name}-instance",
        start="start",
        beats=beats,
        polls=polls,
        assignment=assignment,
        attempts=dict.fromkeys(attempts, Phase.RUNNING),
        free=Capacity(cpu=1, memory=1),
        at=EPOCH,
    )


def runner_view(
    name: str = "otter", *, cpu: float = 2.0, changed: float = 1000.0, proven: bool = True, private: bool = False
) -> RunnerView:
    """A runner whose heartbeat changed at `changed`."""
    watched = Watched(
        instance=f"{name}-instance",
        start="start",
        heartbeat=heartbeat(name),
        changed=changed,
        polled=changed,
        proven=proven,
    )
    return RunnerView(registration=registration(name, cpu=cpu, private=private), watched=watched)


def world(
    *runs: RunView, runners: Sequence[RunnerView] = (), assignments: Mapping[str, Assignments] | None = None
) -> World:
    """These runs and runners."""
    return World(
        repository="repo",
        store="file:///store",
        runs=runs,
        runners={runner.name: runner for runner in runners},
        assignments=assignments or {},
        entropy="entropy",
    )


def assigned(
    attempt: int = 1, *, seq: int = 1, runner: str = "otter", generation: int = 1, nonce: str = "n"
) -> Assigned:
    """The controller gives an attempt to a runner."""
    return Assigned(
        seq=seq,
        at=EPOCH,
        generation=generation,
        attempt=attempt,
        runner=runner,
        instance=f"{runner}-instance",
        nonce=nonce,
    )


def revoked(attempt: int = 1, *, seq: int = 2, reason: Reason = Reason.LOST, generation: int = 1) -> Revoked:
    """The controller gives an attempt up."""
    return Revoked(seq=seq, at=EPOCH, generation=generation, attempt=attempt, reason=reason)


def finished(
    status: Status = Status.DONE,
    *,
    seq: int = 2,
    reason: Reason = Reason.OK,
    generation: int = 1,
    attempt: int | None = 1,
) -> Finished:
    """The controller's last word."""
    return Finished(seq=seq, at=EPOCH, generation=generation, status=status, reason=reason, attempt=attempt)


def started(attempt: int = 1, *, seq: int = 1, runner: str = "otter", nonce: str = "n") -> Started:
    """A runner says that the commands run."""
    return Started(seq=seq, at=EPOCH, attempt=attempt, instance=f"{runner}-instance", nonce=nonce, log="logs/x")


def ended(
    attempt: int = 1,
    *,
    seq: int = 2,
    status: Status = Status.DONE,
    reason: Reason = Reason.OK,
    runner: str = "otter",
    nonce: str = "n",
    exit_code: int | None = 0,
    manifest: str | None = None,
    seconds: float = 1.0,
) -> Ended:
    """A runner says how it ended."""
    return Ended(
        seq=seq,
        at=EPOCH,
        attempt=attempt,
        instance=f"{runner}-instance",
        nonce=nonce,
        status=status,
        reason=reason,
        exit_code=exit_code,
        log="logs/x",
        manifest=manifest,
        times=Times(preparing=EPOCH, running=EPOCH, uploading=EPOCH, ended=EPOCH + timedelta(seconds=seconds)),
    )
