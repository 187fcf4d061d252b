"""The assignment refs, derived anew from the attempts that are open: a projection, so any loss of one heals itself."""

import hashlib
from collections.abc import Iterator, Mapping

from dstack.model import keys
from dstack.model.events import Assigned
from dstack.model.observation import SetAssignments
from dstack.model.plan import PlannedJob
from dstack.model.pool import Attempt, Input, Registration
from dstack.model.s3_place import moved
from dstack.model.turn import OpenAttempt, Turn, Waiting
from dstack.model.world import World

NONCE_DIGITS = 16

Held = dict[str, dict[str, tuple[Attempt, PlannedJob]]]


def assigned_event(turn: Turn, waiting: Waiting, runner: Registration, entropy: str) -> Assigned:
    """The decision that the next attempt of a job is this runner's. Its nonce is drawn from fresh entropy."""
    seed = f"{entropy} {waiting.planned.oid} {waiting.attempt}".encode()
    return Assigned(
        seq=0,
        at=turn.now.wall,
        message=f"attempt {waiting.attempt} goes to {runner.runner}",
        generation=turn.run.state.job(waiting.planned.id).generation,
        attempt=waiting.attempt,
        runner=runner.runner,
        instance=runner.instance,
        nonce=hashlib.sha256(seed).hexdigest()[:NONCE_DIGITS],
        restore=waiting.restore,
    )


def attempt_of(turn: Turn, item: OpenAttempt, world: World) -> Attempt:
    """What the runner is told about an open attempt."""
    run, assigned = turn.run, item.assigned
    return Attempt(
        repository=world.repository,
        run=str(run.key),
        root=run.root,
        snapshot=run.spec.code.snapshot,
        job=item.planned.id,
        attempt=assigned.attempt,
        generation=assigned.generation,
        instance=assigned.instance,
        nonce=assigned.nonce,
        inputs=tuple(_inputs(turn, item, world)),
        restore=assigned.restore,
        log=keys.log(str(run.key), item.planned.id, assigned.attempt),
        store=turn.store,
        order=item.order,
        desired=turn.desired(item.planned.id),
    )


def _inputs(turn: Turn, item: OpenAttempt, world: World) -> Iterator[Input]:
    """What it depends on by tags comes first: the run's own jobs have the last word where both have a path."""
    for one in item.planned.job.tagged:
        store = moved(world.stores, one.store)
        yield Input(job="", manifest=one.manifest, under=one.under, store="" if store == turn.store else store)
    for need in item.planned.job.needs:
        if manifest := turn.outcomes[need.job][1]:
            yield Input(job=need.job, manifest=manifest, under=need.under)


def changed_assignments(world: World, held: Held, private: Mapping[str, bool]) -> tuple[SetAssignments, ...]:
    """The refs that don't hold what they should. Names that `private` maps to True are somebody else's to derive."""
    names = set(world.assignments) | set(held)
    return tuple(
        change
        for name in sorted(names)
        if not private.get(name) and (change := _change(name, world, held.get(name, {})))
    )


def _change(name: str, world: World, wanted: Mapping[str, tuple[Attempt, PlannedJob]]) -> SetAssignments | None:
    actual = world.assignments.get(name)
    kept = {key: attempt for key, attempt in actual.attempts.items() if attempt.run in world.kept} if actual else {}
    attempts = {**kept, **{key: attempt for key, (attempt, _) in wanted.items()}}
    if dict(actual.attempts if actual else {}) == attempts and not (actual and actual.problems):
        return None
    known = {key: actual.jobs[key] for key in kept} if actual else {}
    jobs = {**known, **{key: planned.oid for key, (_, planned) in wanted.items()}}
    return SetAssignments(runner=name, attempts=attempts, jobs=jobs)
