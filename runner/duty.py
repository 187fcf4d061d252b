"""What a runner does about the attempts assigned to it: the decision core. Pure; facts and the time come in.

`react` looks at everything in hand and answers with what is to be done now. It is level-triggered: it may be called at
any time, and asks for each piece of work once. What is learned of an attempt is taken in by `runner.facts`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from dstack.model.gpus import lacking, pick
from dstack.model.job import Job
from dstack.model.placing import cpu_of, executor_of
from dstack.model.pool import Capacity, Phase
from dstack.model.runspec import Desired
from dstack.model.world import Moment
from runner.executor import Signal
from runner.facts import Given, Rules, kept, not_prepared, taken
from runner.held import Cause, Held, Kept, Task

KILL_AGAIN = 5.0

_BEGUN = frozenset({Phase.WAITING, Phase.PREPARING, Phase.RUNNING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Check out the code, place the inputs, start the commands."""

    held: Held


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Signal every process of the attempt."""

    held: Held
    signal: Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Ask the work under way to give up soon."""

    held: Held


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Close the log; then, if `artifacts`, save those."""

    held: Held
    artifacts: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Discard:
    """Remove everything of it from this machine, processes first."""

    held: Held


Action = Prepare | Send | Cancel | Finish | Discard
_Next = tuple[Held, Action | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """All attempts in hand, by key. `taking`: waiting ones are begun, but for executors that are `paused`.

    `found`: GPUs that attempts of an earlier start used when this one began, by key, whatever the journal says of them.
    `interrupted`: everything is to end soon.
    """

    capacity: Capacity
    held: Mapping[str, Held] = field(default_factory=dict)
    taking: bool = True
    paused: frozenset[str] = frozenset()
    found: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    interrupted: bool = False

    def put(self, held: Held) -> "Duty":
        """With this attempt as it is now."""
        return replace(self, held={**self.held, held.key: held})

    @property
    def free(self) -> Capacity:
        """What is left of the machine."""
        busy = [held.job for held in self.held.values() if held.at_work]
        given = {index for held in self.held.values() if held.at_work for index in held.gpus}
        given.update(index for key in self.found for index in self.kept_for(key))
        return Capacity(
            cpu=max(0.0, self.capacity.cpu - sum(map(cpu_of, busy))),
            memory=max(0, self.capacity.memory - sum(job.resources.memory or 0 for job in busy)),
            gpus=tuple(gpu for gpu in self.capacity.gpus if gpu.index not in given),
        )

    def kept_for(self, key: str) -> tuple[int, ...]:
        """GPUs in the hands of an attempt that isn't in ours, or not yet again."""
        held = self.held.get(key)
        return self.found.get(key, ()) if held is None or held.phase is Phase.WAITING else ()


def assigned(duty: Duty, given: Mapping[str, Given], rules: Rules, *, whole: bool) -> Duty:
    """Take in what is assigned now. `whole`: what is absent is gone, and not only unreadable.

    Attempts of another instance are left alone: the controller revokes them, and a report would end their job for good.
    """
    held = {key: _reassigned(one, given.get(key), whole=whole) for key, one in duty.held.items()}
    for key, one in given.items():
        if key not in held and one.job is not None and one.attempt.instance == rules.instance:
            held[key] = taken(one, rules)
    return replace(duty, held=held)


def react(duty: Duty, now: Moment) -> tuple[Duty, tuple[Action, ...]]:
    """What is to be done now, and the duty with that under way."""
    steps = [_next(_caused(held, duty, now), now) for held in duty.held.values()]
    left = {held.key: held for held, _ in steps if not (held.gone and held.discarded)}
    known = replace(duty, held=left)
    begun = _begun(known, now) if duty.taking and not duty.interrupted else {}
    actions = [action for _, action in steps if action] + [Prepare(held=held) for held in begun.values()]
    return replace(known, held={**left, **begun}) if begun else known, tuple(actions)


def next_at(duty: Duty) -> float | None:
    """When time alone changes something, in ticks."""
    return min((moment for held in duty.held.values() for moment in _moments(held)), default=None)


def _reassigned(held: Held, given: Given | None, *, whole: bool) -> Held:
    if given is None or (given.attempt.instance, given.attempt.nonce) != (held.attempt.instance, held.attempt.nonce):
        return replace(held, gone=held.gone or whole)
    started, ended = held.started_known or given.started, held.ended_known or given.ended is not None
    attempt = given.attempt
    if not isinstance(given.job, Job):
        # It was good when it was taken, and has been altered since, or its run has: all but its end stays as it was.
        attempt = msgspec.structs.replace(held.attempt, desired=attempt.desired)
    if (started, ended) == (held.started_known, held.ended_known) and attempt == held.attempt:
        return held
    return replace(held, started_known=started, ended_known=ended, attempt=attempt)


def _caused(held: Held, duty: Duty, now: Moment) -> Held:
    """Fix why it is being ended, if it is. An abort outweighs all; else the first cause that came before the end."""
    desired = held.attempt.desired
    if desired is Desired.ABORT and held.phase is not Phase.ENDED:
        return replace(held, cause=Cause.ABORT)
    if held.cause is not None or held.phase not in _BEGUN:
        return held
    if desired is Desired.STOP:
        return replace(held, cause=Cause.STOP)
    if duty.interrupted:
        return replace(held, cause=Cause.INTERRUPT)
    late = held.deadline is not None and now.ticks >= held.deadline
    return replace(held, cause=Cause.TIMEOUT) if late else held


def _next(held: Held, now: Moment) -> _Next:
    if held.task is not None:
        return _wait_for_task(held)
    if held.phase is Phase.RUNNING:
        return _end(held, now)
    if held.gone or held.phase is Phase.ENDED:
        done = held.discarded or _is_put_off(held, Task.DISCARD, now)
        return (held, None) if done else _doing(held, Task.DISCARD, Discard(held=held))
    if held.cause and held.phase is Phase.WAITING:
        return _next(kept(held, Kept(), now), now)
    if held.cause and held.phase is Phase.PREPARING:
        return _next(not_prepared(held, None, now), now)
    return _go_on(held, now)


def _go_on(held: Held, now: Moment) -> _Next:
    """The next piece of work of one that nobody wants to end, or whose end is to be kept."""
    saves = held.exit is not None and held.cause is not Cause.ABORT and bool(held.job.artifacts)
    task = Task.PREPARE if held.phase is Phase.PREPARING else Task.SAVE if saves else Task.CLOSE
    if held.phase is Phase.WAITING or _is_put_off(held, task, now):
        return held, None
    return _doing(held, task, Prepare(held=held) if task is Task.PREPARE else Finish(held=held, artifacts=saves))


def _is_put_off(held: Held, task: Task, now: Moment) -> bool:
    return held.trouble is not None and held.trouble.task is task and now.ticks < held.trouble.again


def _doing(held: Held, task: Task, action: Action) -> _Next:
    return replace(held, task=task), action


def _wait_for_task(held: Held) -> _Next:
    unwanted = {
        Task.PREPARE: held.gone or held.cause is not None,
        Task.CLOSE: held.gone,
        Task.SAVE: held.gone or held.cause is Cause.ABORT,
    }
    if held.cancelled or held.task is None or not unwanted.get(held.task):
        return held, None
    return replace(held, cancelled=True), Cancel(held=held)


def _end(held: Held, now: Moment) -> _Next:
    """Signals for a running one: TERM, and after its grace KILL, again and again until it is dead."""
    over = held.term_at is not None and now.ticks >= held.term_at + held.job.stop_grace
    if held.gone or held.cause is Cause.ABORT or over:
        if held.kill_at is None or now.ticks >= held.kill_at + KILL_AGAIN:
            return replace(held, kill_at=now.ticks), Send(held=held, signal=Signal.KILL)
    elif held.cause and held.term_at is None:
        return replace(held, term_at=now.ticks), Send(held=held, signal=Signal.TERM)
    return held, None


def _begun(duty: Duty, now: Moment) -> dict[str, Held]:
    """The waiting ones for which there is room, in order; a large one keeps its turn, or its turn at the GPUs.

    First those that run already, with the GPUs that they have: they were in hand before the journal was lost.
    """
    free = duty.free
    cpu, memory, gpus = free.cpu, free.memory, free.gpus
    begun: dict[str, Held] = {}
    waiting = [held for held in duty.held.values() if held.phase is Phase.WAITING and not held.gone]
    open_ = [held for held in waiting if executor_of(held.job) not in duty.paused]
    for held in sorted(open_, key=lambda one: (one.key not in duty.found, one.attempt.order, one.key)):
        own = duty.kept_for(held.key)
        given = () if own else pick(gpus, held.job.resources.gpu)
        if given is None:
            # Others wait behind it for GPUs, unless these are gone for good: then the controller takes it back.
            gpus = gpus if lacking(duty.capacity.gpus, held.job.resources.gpu) else ()
            continue
        cpu -= cpu_of(held.job)
        memory -= held.job.resources.memory or 0
        if cpu < 0 or memory < 0:
            break
        times = msgspec.structs.replace(held.times, preparing=now.wall)
        gpus = tuple(gpu for gpu in gpus if gpu not in given)
        indices = own or tuple(sorted(gpu.index for gpu in given))
        begun[held.key] = replace(held, phase=Phase.PREPARING, task=Task.PREPARE, times=times, gpus=indices)
    return begun


def _moments(held: Held) -> Iterator[float]:
    if held.task is not None:
        return
    if held.trouble:
        yield held.trouble.again
    if held.phase is not Phase.RUNNING:
        return
    if held.kill_at is not None:
        yield held.kill_at + KILL_AGAIN
    elif held.term_at is not None:
        yield held.term_at + held.job.stop_grace
    elif held.deadline is not None and not held.cause:
        yield held.deadline
