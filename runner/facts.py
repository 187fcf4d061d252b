"""What is learned of an attempt in hand, and what that makes of it. Pure: from one `Held` to the next."""

import zlib
from dataclasses import dataclass, replace

import msgspec

from dstack.model import patience
from dstack.model.events import Ended
from dstack.model.job import Job, Reason
from dstack.model.placing import cpu_of, executor_of
from dstack.model.pool import Attempt, Capacity, Phase
from dstack.model.runspec import Desired
from dstack.model.units import size_text
from dstack.model.world import Moment
from runner.executor import Exit
from runner.held import Cause, Failure, Held, Kept, Task, Trouble
from runner.outcome import claim

PATIENCE = 3600.0
SHORT_PATIENCE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What this runner takes: attempts of its repository, for its executors, that fit into its capacity."""

    repository: str
    instance: str
    executors: frozenset[str]
    capacity: Capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An assigned attempt as read. `job` is a Failure where its blob can't be used, or it may not be executed here.

    It is None while nobody can tell.

    `started`, and `ended` if there is one, stand in the runner's own note already.
    """

    attempt: Attempt
    oid: str
    job: Job | Failure | None
    started: bool = False
    ended: Ended | None = None


def taken(given: Given, rules: Rules) -> Held:
    """A new attempt in hand: to wait for room, or refused, or reported before this runner lost its memory of it."""
    unreadable = given.job if isinstance(given.job, Failure) else None
    job = given.job if isinstance(given.job, Job) else Job(root=given.attempt.root, workflow="unknown", commands=())
    held = Held(attempt=given.attempt, job=job, oid=given.oid, started_known=given.started)
    if given.ended is not None:
        return replace(held, phase=Phase.ENDED, ended=given.ended, ended_known=True)
    failure = unreadable or refusal(given.attempt, job, rules)
    return replace(held, phase=Phase.UPLOADING, failure=failure) if failure else held


def refusal(attempt: Attempt, job: Job, rules: Rules) -> Failure | None:
    """Why this runner can't execute it; None if it can."""
    wanted, total = job.resources, rules.capacity
    message = ""
    if attempt.repository != rules.repository:
        message = f"it belongs to another dstack repository ({attempt.repository})"
    elif executor_of(job) not in rules.executors:
        message = f"it needs the executor {executor_of(job)!r}; this runner has {', '.join(sorted(rules.executors))}"
    elif cpu_of(job) > total.cpu:
        message = f"it needs {cpu_of(job):g} cpu; this runner has {total.cpu:g} in all"
    elif (wanted.memory or 0) > total.memory:
        message = f"it needs {size_text(wanted.memory or 0)} of memory; this runner has {size_text(total.memory)}"
    return Failure(reason=Reason.REJECTED, message=f"this runner can't take the job: {message}") if message else None


def prepared(held: Held, now: Moment) -> Held:
    """The commands have started."""
    times = msgspec.structs.replace(held.times, running=now.wall)
    deadline = None if held.job.timeout is None else now.ticks + held.job.timeout
    return replace(_idle(held), phase=Phase.RUNNING, times=times, deadline=deadline, trouble=None)


def not_prepared(held: Held, failure: Failure | None, now: Moment) -> Held:
    """The commands can't be started (None: because it was asked to give up)."""
    return _uploading(replace(_idle(held), trouble=None, failure=failure), now)


def exited(held: Held, exit_: Exit, now: Moment) -> Held:
    """The commands have ended. Only the first news of it counts."""
    return _uploading(replace(held, exit=exit_), now) if held.phase is Phase.RUNNING else held


def held_up(held: Held, failure: Failure, now: Moment, error: BaseException | None = None) -> Held:
    """The work under way can't be done for now, by `error`; `failure` is what it comes to if it never can."""
    before = held.trouble if held.trouble and held.trouble.task is held.task else None
    since, tries = (before.since, before.tries + 1) if before else (now.ticks, 1)
    # What is left on this machine is removed some day, however long that takes.
    if held.task is Task.DISCARD or now.ticks - since < _patience(held):
        again = now.ticks + pause(tries, held.key, error)
        trouble = Trouble(task=held.task, since=since, tries=tries, again=again, failure=failure)
        return replace(_idle(held), trouble=trouble)
    if held.phase is Phase.PREPARING:
        return not_prepared(held, failure, now)
    return kept(held, Kept(failure=failure), now)


def gave_up(held: Held, now: Moment) -> Held:
    """The work under way ended because it was asked to."""
    return not_prepared(held, None, now) if held.phase is Phase.PREPARING else _idle(held)


def kept(held: Held, what: Kept, now: Moment) -> Held:
    """Log and artifacts are safe, or given up: the claim is made."""
    cause = Cause.ABORT if held.attempt.desired is Desired.ABORT else held.cause
    calm = replace(_idle(held), trouble=None, cause=cause)
    return replace(calm, phase=Phase.ENDED, ended=claim(calm, what, now.wall))


def discarded(held: Held) -> Held:
    """Nothing of it is left on this machine."""
    return replace(_idle(held), discarded=True, trouble=None)


def pause(tries: int, salt: str, error: BaseException | None = None) -> float:
    """Seconds before the next try (see dstack.model.patience); the same for the same salt and tries."""
    return patience.pause(tries, zlib.crc32(f"{salt} {tries}".encode()) / 2**32, error)


def _idle(held: Held) -> Held:
    return replace(held, task=None, cancelled=False)


def _uploading(held: Held, now: Moment) -> Held:
    times = msgspec.structs.replace(held.times, uploading=now.wall)
    return replace(held, phase=Phase.UPLOADING, times=times, deadline=None)


def _patience(held: Held) -> float:
    """Nobody waits an hour for the log of what was aborted or could not start."""
    hopeless = held.cause is Cause.ABORT or (held.failure is not None and held.phase is Phase.UPLOADING)
    return SHORT_PATIENCE if hopeless else PATIENCE
