"""Which job goes to which runner: by room, executor and order; large jobs keep their turn (DESIGN section 7.1)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dstack.model.job import Job
from dstack.model.pool import Capacity

MAX_BACKLOG = 32
FIRST_BACKLOG_PER_SLOT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A job that could run. `order` sorts the queue. `expected`: seconds it should take, None if nobody knows.

    `avoid`: runners it was lost on, taken only if there is no other. `only`: the one runner it may go to.
    """

    key: str
    job: Job
    order: str
    expected: float | None = None
    avoid: frozenset[str] = frozenset()
    only: str | None = None


@dataclass(slots=True, kw_only=True)
class Room:
    """What is left of a runner while a turn places jobs on it."""

    runner: str
    total: Capacity
    executors: frozenset[str]
    private: bool = False
    cpu: float = 0.0
    memory: float = 0.0
    backlog: int = 0
    reserved: bool = False

    def take(self, job: Job) -> None:
        """Count a job that runs there or waits there."""
        self.cpu -= cpu_of(job)
        self.memory -= job.resources.memory or 0
        if self.cpu < 0 or self.memory < 0:
            self.backlog += 1

    def has_room(self, job: Job) -> bool:
        """Whether the job could start at once."""
        return cpu_of(job) <= self.cpu and (job.resources.memory or 0) <= self.memory

    def may_queue(self, job: Job, expected: float | None, interval: float) -> bool:
        """Whether the job would start there before another push could bring it."""
        slots = max(1.0, math.floor(self.total.cpu / cpu_of(job)))
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
        return f"has {room.total.memory} bytes of memory in all"
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
    needs = (executor_of(candidate.job), resources.cpu, resources.memory)
    return (*needs, candidate.expected, candidate.avoid, candidate.only)


def _choose(candidate: Candidate, rooms: Sequence[Room], interval: float) -> tuple[Room | None, str]:
    fitting = [room for room in rooms if _allowed(candidate, room) and not misfit(candidate.job, room)]
    if not fitting:
        return None, why_nowhere(candidate, rooms)
    fitting.sort(key=lambda room: (room.runner in candidate.avoid, -room.cpu, room.runner))
    free = [room for room in fitting if not room.reserved]
    for room in free:
        if room.has_room(candidate.job):
            return room, ""
    for room in free:
        if room.may_queue(candidate.job, candidate.expected, interval):
            return room, ""
    if free:
        free[0].reserved = True
    return None, "waits for room on " + _names(fitting)


def _allowed(candidate: Candidate, room: Room) -> bool:
    if candidate.only:
        return candidate.only == room.runner
    return not room.private


def why_nowhere(candidate: Candidate, rooms: Sequence[Room]) -> str:
    """A sentence: what keeps every runner from taking this job."""
    allowed = [room for room in rooms if _allowed(candidate, room)]
    if not allowed:
        return "waits for a runner: none is live"
    reasons = "; ".join(f"{room.runner} {misfit(candidate.job, room)}" for room in allowed[:3])
    return f"no live runner can take it: {reasons}"


def _names(rooms: Sequence[Room]) -> str:
    names = sorted(room.runner for room in rooms)
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")  # noqa: PLR2004 (three names fit a line)
