"""One run's part of a turn: what is found out and decided about it, gathered until all of it is committed at once."""

from dataclasses import dataclass, field

import msgspec

from dstack.model.events import Assigned, Event
from dstack.model.job import Job, to_bytes
from dstack.model.observation import AppendNotes
from dstack.model.placing import Candidate
from dstack.model.plan import PlannedJob
from dstack.model.pool import attempt_key
from dstack.model.refs import CONTROLLER
from dstack.model.reuse import Answer, Lookup, Parts, job_parts
from dstack.model.runspec import Desired
from dstack.model.states import desired_of
from dstack.model.status import Status
from dstack.model.world import Moment, RunView

PRIORITY_SPAN = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAttempt:
    """An attempt that a runner should hold."""

    planned: PlannedJob
    assigned: Assigned
    order: str

    @property
    def key(self) -> str:
        """`<job>.<attempt>`."""
        return attempt_key(self.planned.id, self.assigned.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A job that could start, and the number its next attempt would have."""

    planned: PlannedJob
    candidate: Candidate
    attempt: int
    restore: str | None = None


@dataclass(slots=True, kw_only=True)
class Turn:
    """Grows while a run is advanced. `outcomes`: status and manifest of each finished job. `wakes` in ticks.

    `unsure`: full ids of jobs that wait until it is known whether another stands in; `lookups` what is to be looked up
    for some of them. `answers`: which keys are answered by what is finished in this turn. `pointers`: where artifact
    sets are to be looked for (a store's URL, a key) before jobs that start from them can go on. `refusers`: runners
    that don't trust the run.
    """

    run: RunView
    now: Moment
    store: str
    events: dict[str, list[Event]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    outcomes: dict[str, tuple[Status, str | None]] = field(default_factory=dict)
    ready: list[Waiting] = field(default_factory=list)
    open: list[OpenAttempt] = field(default_factory=list)
    wakes: list[float] = field(default_factory=list)
    unsure: set[str] = field(default_factory=set)
    lookups: dict[str, Lookup] = field(default_factory=dict)
    answers: dict[Lookup, Answer] = field(default_factory=dict)
    pointers: set[tuple[str, str]] = field(default_factory=set)
    refusers: frozenset[str] = frozenset()
    _jobs: dict[str, Job] = field(default_factory=dict)

    def add(self, oid: str, event: Event) -> None:
        """Append an event to the note on `oid`, with the sequence number that comes next."""
        events = self.events.setdefault(oid, [])
        events.append(msgspec.structs.replace(event, seq=self.run.lines.get(oid, 0) + len(events) + 1))

    def add_blob(self, planned: PlannedJob) -> None:
        """Put a job object into the notes."""
        self.blobs[planned.oid] = to_bytes(planned.job)

    def parts(self, job: Job) -> Parts | None:
        """The parts of a job's key; None where they can't be known (yet)."""
        if not self._jobs and self.run.plan:
            self._jobs = {planned.id: planned.job for planned in self.run.plan.jobs}
        return job_parts(job, self.run.spec.code.contents, self._made)

    def _made(self, job_id: str) -> tuple[Job, str | None] | None:
        status, manifest = self.outcomes.get(job_id, (None, None))
        found = self._jobs.get(job_id)
        return (found, manifest) if found and status is Status.DONE else None

    def desired(self, job_id: str) -> Desired:
        """What is wanted of a job now."""
        return desired_of(job_id, self.run.wanted, self.run.state.generation)

    def order(self, index: int) -> str:
        """The place of the run's job number `index` in the queue of all jobs; sorts as text."""
        priority = max(-PRIORITY_SPAN, min(PRIORITY_SPAN, self.run.spec.options.priority))
        planned = self.run.state.planned.at if self.run.state.planned else self.now.wall
        return f"{PRIORITY_SPAN - priority:07d} {planned.isoformat()} {self.run.key.name} {index:05d}"

    def notes(self) -> AppendNotes:
        """The change to the controller's notes of this run."""
        events = {oid: tuple(events) for oid, events in self.events.items()}
        return AppendNotes(key=self.run.key, writer=CONTROLLER, events=events, jobs=self.blobs)
