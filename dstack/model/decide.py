"""The decisions of one turn: `decide(world, now)`. No I/O, no clock, no randomness.

Each unfinished run is advanced by itself; then what is ready is placed on runners, and the assignment refs are derived
anew from the attempts that are open.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dstack.model.advance import advance
from dstack.model.assigning import Held, assigned_event, attempt_of, changed_assignments
from dstack.model.fates import RunnerFates
from dstack.model.observation import Change
from dstack.model.placing import Placement, place
from dstack.model.pool import Phase, RunnerState
from dstack.model.resuming import Pointer, is_resumed
from dstack.model.reuse import Answer, Lookup
from dstack.model.rooms import SENTENCE, beat_of, pauses_of, rooms_of
from dstack.model.tagging import tag_changes, untagged
from dstack.model.turn import OpenAttempt, Turn, Waiting
from dstack.model.turn_taking import in_turn
from dstack.model.world import Moment, RunnerView, RunView, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """`changes` belong in one atomic push, and `tags` in another: rules for tags are not to hold up anything else.

    `next_at` in ticks: when to decide again if nothing happens. `waiting` says of each job that waits for a runner (12
    digits) why. `lookups`, by full ids of jobs: what is to be looked up before these are placed (`World.cache`); decide
    again then. `unsure`: the jobs for which an answer still matters. `answers`: keys that jobs answer which are
    finished by these very changes. `pointers`: where sets are to be looked for (`World.sets`); decide again then.
    """

    changes: tuple[Change, ...]
    tags: tuple[Change, ...] = ()
    next_at: float | None
    waiting: Mapping[str, str]
    lookups: Mapping[str, Lookup] = field(default_factory=dict)
    unsure: frozenset[str] = frozenset()
    answers: Mapping[Lookup, Answer] = field(default_factory=dict)
    pointers: frozenset[Pointer] = frozenset()


def decide(world: World, now: Moment) -> Decisions:
    """All that can be decided now."""
    fates = fates_of(world, now)
    turns = [
        advance(run, world, fates, now)
        for run in world.runs
        if (not run.state.finished or is_resumed(run)) and _ours(run, world, fates)
    ]
    queue, later = in_turn(turns)
    placement = place(queue, rooms_of(world, turns, fates), interval=world.interval)
    held = _hold(world, turns, placement)
    changes: list[Change] = [turn.notes() for turn in turns if turn.events]
    changes.extend(changed_assignments(world, held, _not_ours(world, fates)))
    return Decisions(
        changes=tuple(changes),
        tags=tag_changes(world, [run for run in untagged(world) if _ours(run, world, fates)], now),
        next_at=_next_at(world, turns, fates, now),
        waiting={**placement.waiting, **later},
        lookups={oid: lookup for turn in turns for oid, lookup in turn.lookups.items()},
        unsure=frozenset(oid for turn in turns for oid in turn.unsure),
        answers={lookup: answer for turn in turns for lookup, answer in turn.answers.items()},
        pointers=frozenset(pointer for turn in turns for pointer in turn.pointers),
    )


def fates_of(world: World, now: Moment) -> RunnerFates:
    """Which runners are lost, and which attempts they gave up."""
    lost = frozenset(name for name, runner in world.runners.items() if _lost(runner, world, now))
    return RunnerFates(
        lost=lost,
        gone=frozenset(name for name, one in world.runners.items() if one.registration.state is RunnerState.GONE),
        waiting={(name, key): why for name, key, why in _waiting(world)},
        paused={
            (name, executor): why for name, one in world.runners.items() for executor, why in pauses_of(one).items()
        },
        gpus={name: one.registration.capacity.gpus for name, one in world.runners.items()},
        spared=frozenset(_spared(world, lost, now)) if lost else frozenset(),
        instances={name: runner.registration.instance for name, runner in world.runners.items()},
        given_up=frozenset(
            (name, key)
            for name, runner in world.runners.items()
            for key in runner.watched.missing
            if runner.watched.gave_up(key, world.lease, now.ticks)
        ),
    )


def _spared(world: World, lost: frozenset[str], now: Moment) -> Iterable[str]:
    """Attempts given to a lost runner after we lost it. Controllers that disagree mustn't use up its retries."""
    for name in lost:
        if name in world.assignments and world.runners[name].registration.state is not RunnerState.GONE:
            since = world.runners[name].watched.lost_at(world.lease)
            for key in world.assignments[name].attempts:
                first = world.opened.get(key)
                if first is not None and since < first and now.ticks < first + world.lease:
                    yield key


def _lost(runner: RunnerView, world: World, now: Moment) -> bool:
    gone = runner.registration.state is RunnerState.GONE
    return gone or runner.watched.is_lost(world.lease, now.ticks)


def _ours(run: RunView, world: World, fates: RunnerFates) -> bool:
    """A `--local` run is decided beside its runner; by anybody else only when that runner is gone."""
    if world.only:
        return run.key == world.only
    only = run.spec.options.only
    return only is None or (world.settled_in and (only not in world.runners or only in fates.lost))


def _not_ours(world: World, fates: RunnerFates) -> Mapping[str, bool]:
    """Assignment refs that somebody else derives: those of private runners at home; beside one, all others."""
    names = set(world.assignments) | set(world.runners)
    if world.only:
        own = {run.spec.options.only for run in world.runs if run.key == world.only}
        return {name: name not in own for name in names}
    return {
        name: name not in fates.lost and name in world.runners and world.runners[name].registration.private
        for name in names
    }


def _waiting(world: World) -> Iterable[tuple[str, str, str]]:
    """(runner, attempt, pause): those not begun when the very start that is registered told so."""
    for name, runner in world.runners.items():
        if beat := beat_of(runner):
            for key, phase in beat.attempts.items():
                if phase is Phase.WAITING:
                    yield name, key, beat.pause[:SENTENCE]


def _hold(world: World, turns: Iterable[Turn], placement: Placement) -> Held:
    """By runner, the attempts it should hold: those still open, and those placed now."""
    held: Held = {}
    for turn in turns:
        placed = [
            _assign(turn, waiting, world, placement)
            for waiting in turn.ready
            if waiting.candidate.key in placement.placed
        ]
        for item in (*turn.open, *placed):
            held.setdefault(item.assigned.runner, {})[item.key] = (attempt_of(turn, item, world), item.planned)
    return held


def _assign(turn: Turn, waiting: Waiting, world: World, placement: Placement) -> OpenAttempt:
    runner = world.runners[placement.placed[waiting.candidate.key]]
    event = assigned_event(turn, waiting, runner.registration, world.entropy)
    turn.add(waiting.planned.oid, event)
    return OpenAttempt(planned=waiting.planned, assigned=event, order=waiting.candidate.order)


def _next_at(world: World, turns: Iterable[Turn], fates: RunnerFates, now: Moment) -> float | None:
    """The next moment at which time alone changes a decision: a lease or a backoff that ends."""
    wakes = {wake for turn in turns for wake in turn.wakes}
    holders = {item.assigned.runner for turn in turns for item in turn.open}
    for name in holders & set(world.runners):
        watched = world.runners[name].watched
        wakes.add(watched.lost_at(world.lease))
        wakes.update(since + 2 * world.lease for since in watched.missing.values())
    wakes.update(world.opened[key] + world.lease for key in fates.spared)
    return min((wake for wake in wakes if wake > now.ticks), default=None)
