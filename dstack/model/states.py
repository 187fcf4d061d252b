"""Events → state: a pure fold. Order of arrival and repetition don't matter; a fenced attempt's reports don't count."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from dstack.model.events import (
    Assigned,
    Ended,
    Event,
    Finished,
    JobSummary,
    Planned,
    Resumed,
    Reused,
    Revoked,
    RunFinished,
    Started,
    Tagged,
)
from dstack.model.job import Reason
from dstack.model.runspec import Desired, Wanted
from dstack.model.status import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptState:
    """One attempt: who holds it, and those of its reports that count."""

    assigned: Assigned
    revoked: Revoked | None = None
    started: Started | None = None
    ended: Ended | None = None

    @property
    def number(self) -> int:
        """Counts from 1 over all generations of the job."""
        return self.assigned.attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """A job in its highest generation; `attempts` of all generations, in order."""

    generation: int = 1
    attempts: tuple[AttemptState, ...] = ()
    finished: Finished | Reused | None = None

    @property
    def open(self) -> AttemptState | None:
        """The attempt whose report would be believed now."""
        if self.finished or not self.attempts:
            return None
        last = self.attempts[-1]
        return None if last.revoked or last.assigned.generation != self.generation else last

    @property
    def tried(self) -> tuple[AttemptState, ...]:
        """The attempts of this generation."""
        return tuple(attempt for attempt in self.attempts if attempt.assigned.generation == self.generation)

    @property
    def outcome(self) -> Status | None:
        """How it ended; None while it hasn't."""
        if self.finished is None:
            return None
        return self.finished.status if isinstance(self.finished, Finished) else Status.DONE

    @property
    def manifest(self) -> str | None:
        """The digest of its artifact set, once finished."""
        return self.finished.manifest if self.finished else None


FRESH = JobState()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """A run: `jobs` by 12 digits (a job without events is FRESH and may be absent)."""

    generation: int = 1
    planned: Planned | None = None
    finished: RunFinished | None = None
    tagged: Tagged | None = None
    summaries: tuple[JobSummary, ...] = ()
    jobs: Mapping[str, JobState] = field(default_factory=dict)

    def job(self, job_id: str) -> JobState:
        """The state of one job."""
        return self.jobs.get(job_id, FRESH)


def fold_root(events: Iterable[Event]) -> tuple[RunState, Mapping[str, int]]:
    """The run's own story, without jobs; and the generation each resumed job is in."""
    state = RunState()
    generations: dict[str, int] = {}
    for event in in_order(events):
        if isinstance(event, Planned) and state.planned is None:
            state = replace(state, planned=event)
        elif isinstance(event, Resumed) and event.generation > state.generation:
            state = replace(state, generation=event.generation, finished=None, summaries=())
            generations.update(dict.fromkeys(event.jobs, event.generation))
        elif isinstance(event, RunFinished) and event.generation == state.generation:
            state = replace(state, finished=state.finished or event)
        elif isinstance(event, Tagged):
            state = replace(state, tagged=event)
        elif isinstance(event, JobSummary) and event.generation == state.generation:
            state = replace(state, summaries=(*state.summaries, event))
    return state, generations


def fold_job(controller: Iterable[Event], runners: Mapping[str, Iterable[Event]], *, generation: int = 1) -> JobState:
    """One job's state from the controller's events on it and, by runner, the runners' claims.

    `generation` is the highest one that the run's root names the job in.
    """
    state = JobState(generation=generation)
    for event in in_order(controller):
        state = _decided(state, event)
    attempts = tuple(_with_claims(attempt, runners) for attempt in state.attempts)
    return replace(state, attempts=attempts) if attempts else state


def in_order(events: Iterable[Event]) -> list[Event]:
    """By `seq`, each once: what a writer wrote, whatever was read twice or late."""
    unique: dict[int, Event] = {}
    for event in events:
        unique.setdefault(event.seq, event)
    return [unique[seq] for seq in sorted(unique)]


def _decided(state: JobState, event: Event) -> JobState:
    """What one decision changes. A generation that no `resumed` has begun doesn't exist yet: its events don't count."""
    if not isinstance(event, Assigned | Revoked | Reused | Finished) or event.generation > state.generation:
        return state
    if isinstance(event, Revoked):
        return replace(state, attempts=tuple(_revoked(attempt, event) for attempt in state.attempts))
    if event.generation < state.generation and not isinstance(event, Assigned):
        return state
    if isinstance(event, Assigned):
        return _assigned(state, event)
    return state if state.finished else replace(state, finished=event)


def _assigned(state: JobState, event: Assigned) -> JobState:
    known = any(attempt.number >= event.attempt for attempt in state.attempts)
    if known or (state.finished and event.generation == state.generation):
        return state
    return replace(state, attempts=(*state.attempts, AttemptState(assigned=event)))


def _revoked(attempt: AttemptState, event: Revoked) -> AttemptState:
    return replace(attempt, revoked=event) if attempt.number == event.attempt and not attempt.revoked else attempt


def _with_claims(attempt: AttemptState, runners: Mapping[str, Iterable[Event]]) -> AttemptState:
    if attempt.revoked:
        return attempt
    started: Started | None = None
    ended: Ended | None = None
    for event in in_order(runners.get(attempt.assigned.runner, ())):
        if not isinstance(event, Started | Ended) or not _fits(event, attempt.assigned):
            continue
        if isinstance(event, Started):
            started = started or event
        else:
            ended = ended or event
    return replace(attempt, started=started, ended=ended) if started or ended else attempt


def _fits(event: Started | Ended, assigned: Assigned) -> bool:
    """The fence: attempt, instance and nonce are the assigned ones (the runner is the note's writer)."""
    return (event.attempt, event.instance, event.nonce) == (assigned.attempt, assigned.instance, assigned.nonce)


def desired_of(job_id: str, wanted: Wanted, generation: int) -> Desired:
    """What is wanted of a job now. A wish holds for its own generation only; abort outweighs stop."""
    if wanted.generation != generation:
        return Desired.RUN
    wishes = {wanted.desired, wanted.jobs.get(job_id, Desired.RUN)}
    return next(wish for wish in (Desired.ABORT, Desired.STOP, Desired.RUN) if wish in wishes)


def job_status(state: JobState, desired: Desired, *, ready: bool) -> Status:
    """The word for a job; `ready`: everything it needs is DONE."""
    if state.outcome:
        return state.outcome
    if desired is not Desired.RUN:
        return Status.STOPPING if desired is Desired.STOP else Status.ABORTING
    attempt = state.open
    if attempt is None:
        return Status.QUEUED if ready else Status.SUBMITTED
    return Status.RUNNING if attempt.started or attempt.ended else Status.ASSIGNED


_UNFINISHED = (
    Status.RUNNING,
    Status.ABORTING,
    Status.STOPPING,
    Status.ASSIGNED,
    Status.QUEUED,
    Status.SUBMITTED,
)
_ENDS = (Status.FAILED, Status.ABORTED, Status.STOPPED, Status.SKIPPED, Status.DONE)


def run_status(state: RunState, jobs: Iterable[Status]) -> Status:
    """The word for a run, from those of its jobs by a fixed order (DESIGN section 6)."""
    if state.finished:
        return state.finished.status
    words = set(jobs)
    return next((word for word in (*_UNFINISHED, *_ENDS) if word in words), Status.SUBMITTED)


def run_reason(jobs: Iterable[tuple[Status, Reason]], status: Status) -> Reason:
    """The reason of the first job that gave the run its end."""
    return next((reason for word, reason in jobs if word is status), Reason.OK)
