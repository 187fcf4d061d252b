"""Why jobs wait for a runner: what the controller would decide now, by what git and the store show to a reader."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from cli.ago import share_text
from cli.home import why_nobody_decides
from cli.lines import JobLine, RunLine
from cli.reading import Reader
from cli.session import Seen
from dstack.model.decide import decide
from dstack.model.errors import DstackError
from dstack.model.liveness import Watched
from dstack.model.observation import Observation
from dstack.model.pool import Phase, Registration, Transfer, attempt_key
from dstack.model.status import Status
from dstack.model.world import Moment, RunnerView, World
from dstack.store.heartbeats import Seen as Beat
from dstack.store.store import Store

_OPEN = frozenset({Status.QUEUED, Status.ASSIGNED, Status.RUNNING})
# On a forge the note says so only with the job's end (DESIGN section 9).
_AT_WORK = frozenset({Phase.RUNNING, Phase.UPLOADING})

_TRANSFERS: Mapping[tuple[Phase | None, str], str] = {
    (Phase.PREPARING, "image"): "pulling the image",
    (Phase.PREPARING, "input"): "fetching inputs",
    (Phase.UPLOADING, "artifacts"): "uploading",
}

Beats = Mapping[tuple[str, str], Beat]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Causes:
    """`nobody`: why nothing is decided at all. `reasons` by job, `phases` and `transfers` by `<job>.<attempt>`."""

    nobody: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict)
    phases: Mapping[str, Phase] = field(default_factory=dict)
    transfers: Mapping[str, Transfer] = field(default_factory=dict)


def with_reasons(lines: Sequence[RunLine], reader: Reader, seen: Seen) -> tuple[RunLine, ...]:
    """The lines, with a sentence on each job that waits for a controller or runner, and the phase of what runs."""
    if not any(job.status in _OPEN for line in lines for job in line.jobs):
        return tuple(lines)
    try:
        store = seen.store()
        beats = reader.heartbeats(store).seen
    except DstackError as error:
        return tuple(_told(line, _Causes(nobody=str(error))) for line in lines)
    observation = reader.observation(seen, [line.run for line in lines if not line.finished], pool=True)
    causes = _Causes(
        nobody=why_nobody_decides(seen),
        reasons=_reasons(reader, observation, world_runners(observation.runners, beats, store), seen),
        phases={key: phase for beat in beats.values() for key, phase in beat.heartbeat.attempts.items()},
        transfers={key: one for beat in beats.values() for key, one in beat.heartbeat.transfers.items()},
    )
    return tuple(_told(line, causes) for line in lines)


def world_runners(registrations: Mapping[str, Registration], beats: Beats, store: Store) -> dict[str, RunnerView]:
    """Runners judged by the age of their heartbeat, by the store's own clock: for display only."""
    now, ticks = store.now(), time.monotonic()
    return {name: _runner(one, beats.get((name, one.instance)), now, ticks) for name, one in registrations.items()}


def _runner(registration: Registration, beat: Beat | None, now: datetime, ticks: float) -> RunnerView:
    age = (now - beat.modified).total_seconds() if beat else float("inf")
    watched = Watched(
        instance=registration.instance,
        start=registration.start,
        heartbeat=beat.heartbeat if beat else None,
        changed=ticks - age,
        polled=ticks - age,
        proven=beat is not None,
    )
    return RunnerView(registration=registration, watched=watched)


def _reasons(
    reader: Reader, observation: Observation, runners: Mapping[str, RunnerView], seen: Seen
) -> Mapping[str, str]:
    world = World(
        repository=seen.known_repository(),
        store=seen.store_url,
        runs=reader.views(observation),
        runners=runners,
        assignments=observation.assignments,
        entropy="",
        lease=seen.settings.lease,
    )
    return decide(world, Moment(wall=datetime.now(UTC), ticks=time.monotonic())).waiting


def _told(line: RunLine, causes: _Causes) -> RunLine:
    jobs = tuple(_explained(line, job, causes) if job.status in _OPEN else job for job in line.jobs)
    at_work = line.status in _OPEN and any(job.status is Status.RUNNING for job in jobs)
    return msgspec.structs.replace(line, jobs=jobs, status=Status.RUNNING if at_work else line.status)


def _explained(run: RunLine, job: JobLine, causes: _Causes) -> JobLine:
    phase = causes.phases.get(attempt_key(job.job, job.attempt or 0))
    if job.status is Status.ASSIGNED and phase in _AT_WORK:
        job = msgspec.structs.replace(job, status=Status.RUNNING)
    return msgspec.structs.replace(job, message=_why(run, job, causes) or job.message)


def _why(run: RunLine, job: JobLine, causes: _Causes) -> str:
    if job.status is Status.QUEUED and run.only:
        return f"waits for the command that started it (--local, as {run.only})"
    if job.status is Status.QUEUED:
        return causes.nobody or causes.reasons.get(job.job, "is about to be assigned")
    key = attempt_key(job.job, job.attempt or 0)
    return phase_text(job.status, causes.phases.get(key), causes.transfers.get(key))


def phase_text(status: Status, phase: Phase | None, transfer: Transfer | None) -> str:
    """What an assigned or running job is at, where its status doesn't tell: `uploading 120/500 MB`."""
    if phase is Phase.WAITING and status is Status.ASSIGNED:
        return "waits its turn there"
    if phase is not Phase.UPLOADING and status is not Status.ASSIGNED:
        return ""
    words = _TRANSFERS.get((phase, transfer.what)) if transfer and transfer.total > 0 else None
    return f"{words} {share_text(transfer.done, transfer.total)}" if words and transfer else str(phase or "")
