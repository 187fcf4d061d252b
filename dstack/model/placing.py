"""Which job goes to which runner: by room, labels, executor, order; large jobs keep their turn (DESIGN section 7.1)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dstack.model.gpus import Gpu, lacking, pick, suits
from dstack.model.job import Job
from dstack.model.pool import Capacity
from dstack.model.units import size_text

MAX_BACKLOG = 32
FIRST_BACKLOG_PER_SLOT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A job that could run. `order` sorts the queue. `expected`: seconds it should take, None if nobody knows.

    `avoid`: runners it was lost on, taken only if there is no other. `only`: the one runner it may go to. `refused`:
    those that would not begin it, because of its signature. `fork`: its code is from a fork.
    """

    key: str
    job: Job
    order: str
    expected: float | None = None
    avoid: frozenset[str] = frozenset()
    only: str | None = None
    refused: frozenset[str] = frozenset()
    fork: bool = False


@dataclass(slots=True, kw_only=True)
class Room:
    """What is left of a runner while a turn places jobs on it.

    `closed`: why it takes nothing now; `pauses`: why nothing for an executor. `reserved`: all that
    gets free is for a large job; `awaited`: the GPUs only. `forks`: it runs the code of forks.
    """

    runner: str
    total: Capacity
    executors: frozenset[str]
    labels: frozenset[str] = frozenset()
    volumes: frozenset[str] = frozenset()
    interruptible: bool = False
    closed: str = ""
    pauses: Mapping[str, str] = field(default_factory=dict)
    private: bool = False
    forks: bool = False
    cpu: float = 0.0
    memory: float = 0.0
    gpus: tuple[Gpu, ...] = ()
    backlog: int = 0
    reserved: bool = False
    awaited: bool = False

    def take(self, job: Job) -> None:
        """Count a job that runs there or waits there."""
        given = pick(self.gpus, job.resources.gpu)
        if given is None:
            self.backlog += 1
            return
        self.gpus = tuple(gpu for gpu in self.gpus if gpu not in given)
        self.cpu -= cpu_of(job)
        self.memory -= job.resources.memory or 0
        if self.cpu < 0 or self.memory < 0:
            self.backlog += 1

    def has_room(self, job: Job) -> bool:
        """Whether the job could start at once."""
        return not self.lacks_gpus(job) and cpu_of(job) <= self.cpu and (job.resources.memory or 0) <= self.memory

    def lacks_gpus(self, job: Job) -> bool:
        """Whether the GPUs it asks for are given away for now."""
        return pick(self.gpus, job.resources.gpu) is None

    def closed_to(self, job: Job) -> str:
        """Why it doesn't take the job now; empty if it does."""
        executor = executor_of(job)
        why = self.pauses.get(executor, "")
        return self.closed or (f"takes no {executor} jobs now: {why}" if why else "")

    def is_kept_from(self, job: Job) -> bool:
        """Whether what gets free here is meant for another."""
        return self.reserved or (self.awaited and job.resources.gpu is not None)

    def keep_for(self, job: Job) -> None:
        """Leave what gets free to this job. Who waits for GPUs alone doesn't keep the processors idle."""
        if self.lacks_gpus(job):
            self.awaited = True
        else:
            self.reserved = True

    def may_queue(self, job: Job, expected: float | None, interval: float) -> bool:
        """Whether the job would start there before another push could bring it."""
        slots = max(1.0, math.floor(self.total.cpu / cpu_of(job)))
        if wanted := job.resources.gpu:
            slots = min(slots, sum(suits(gpu, wanted) for gpu in self.total.gpus) // wanted.count)
        if expected is None:
            allowed = FIRST_BACKLOG_PER_SLOT * slots
        else:
            allowed = math.floor(2 * interval / max(expected, 1e-3) * slots)
        return self.backlog < min(MAX_BACKLOG, allowed)


def cpu_of(job: Job) -> float:
    """Cores a job takes: one if it names none."""
    return 1.0 if job.resources.cpu is None else job.resources.cpu


def executor_of(job: Job) -> str:
    """The executor a job needs."""
    return "docker" if job.image else "process"


def misfit(job: Job, room: Room) -> str:
    """Why the job could never run there; empty if it could."""
    if executor_of(job) not in room.executors:
        return "has no Docker" if job.image else "does not run jobs without an image"
    if cpu_of(job) > room.total.cpu:
        return f"has {room.total.cpu:g} cpu in all"
    if (job.resources.memory or 0) > room.total.memory:
        return f"has {size_text(room.total.memory)} of memory in all"
    return _not_offered(job, room) or lacking(room.total.gpus, job.resources.gpu)


def objection(candidate: Candidate, room: Room) -> str:
    """Why this could never run there; empty if it could."""
    if candidate.fork and not room.forks:
        return "runs nothing from forks (`dstack-runner config --forks` on its machine allows it)"
    if room.runner in candidate.refused:
        return "has refused it because of its signature"
    return misfit(candidate.job, room)


def _not_offered(job: Job, room: Room) -> str:
    """What its owner would have to say of the runner for it to take the job; empty if there is nothing."""
    missing = [label for label in job.labels if label not in room.labels]
    if missing:
        return f"has no label {', '.join(missing)}"
    unknown = sorted({volume.name for volume in job.volumes} - room.volumes)
    if unknown:
        return f"offers no volume {', '.join(unknown)}"
    if room.interruptible and not job.resources.interruptible:
        return "can be taken away at any time, and the job does not say `interruptible: true`"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The result: runner by candidate's key; and for those that wait, why."""

    placed: Mapping[str, str] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)


def place(queue: Iterable[Candidate], rooms: Sequence[Room], *, interval: float) -> Placement:
    """Place what can be placed. `rooms` is used up."""
    placed: dict[str, str] = {}
    waiting: dict[str, str] = {}
    refused: dict[tuple[object, ...], str] = {}
    for candidate in sorted(queue, key=lambda candidate: candidate.order):
        kind = _kind(candidate)
        if kind in refused:
            waiting[candidate.key] = refused[kind]
            continue
        room, why = _choose(candidate, rooms, interval)
        if room is None:
            # Rooms only shrink in a turn: what one job was refused, an equal one is refused too.
            refused[kind] = waiting[candidate.key] = why
            continue
        room.take(candidate.job)
        placed[candidate.key] = room.runner
    return Placement(placed=placed, waiting=waiting)


def _kind(candidate: Candidate) -> tuple[object, ...]:
    resources = candidate.job.resources
    needs = (executor_of(candidate.job), resources.cpu, resources.memory, resources.gpu, candidate.job.labels)
    places = (frozenset(volume.name for volume in candidate.job.volumes), resources.interruptible)
    trust = (candidate.refused, candidate.fork)
    return (*needs, *places, *trust, candidate.expected, candidate.avoid, candidate.only)


def _choose(candidate: Candidate, rooms: Sequence[Room], interval: float) -> tuple[Room | None, str]:
    job = candidate.job
    fitting = [
        room for room in rooms if _allowed(candidate, room) and not (objection(candidate, room) or room.closed_to(job))
    ]
    if not fitting:
        return None, why_nowhere(candidate, rooms)
    # Machines with GPUs are left to those who ask for some, as long as there are others.
    spare = job.resources.gpu is None
    fitting.sort(
        key=lambda room: (room.runner in candidate.avoid, spare and bool(room.total.gpus), -room.cpu, room.runner)
    )
    free = [room for room in fitting if not room.is_kept_from(job)]
    for room in free:
        if room.has_room(job):
            return room, ""
    for room in free:
        if room.may_queue(job, candidate.expected, interval):
            return room, ""
    if free:
        free[0].keep_for(job)
    what = "a GPU" if all(room.lacks_gpus(job) for room in fitting) else "room"
    return None, f"waits for {what} on {_names(fitting)}"


def _allowed(candidate: Candidate, room: Room) -> bool:
    if candidate.only:
        return candidate.only == room.runner
    return not room.private


def why_nowhere(candidate: Candidate, rooms: Sequence[Room]) -> str:
    """A sentence: what keeps every runner from taking this job."""
    allowed = sorted((room for room in rooms if _allowed(candidate, room)), key=lambda room: room.runner)
    if not allowed:
        return "waits for a runner: none is live"
    reasons = "; ".join(
        f"{room.runner} {objection(candidate, room) or room.closed_to(candidate.job)}" for room in allowed[:3]
    )
    return f"no live runner can take it: {reasons}"


def _names(rooms: Sequence[Room]) -> str:
    names = sorted(room.runner for room in rooms)
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")  # noqa: PLR2004 (three names fit a line)
