"""Advance one run: conclude attempts that ended or were lost, obey stops, find what is ready, finish what is done."""

from dataclasses import replace

from dstack.model.events import Planned
from dstack.model.fates import RunnerFates
from dstack.model.plan import Plan
from dstack.model.refused import refusers
from dstack.model.resuming import Unknown, is_resumed, resumed
from dstack.model.s3_place import moved
from dstack.model.states import RunState
from dstack.model.step import Step
from dstack.model.summing_up import finish, finish_distrusted, finish_invalid
from dstack.model.turn import Turn
from dstack.model.world import Moment, RunView, World

SAMPLE = 50


def advance(run: RunView, world: World, fates: RunnerFates, now: Moment) -> Turn:
    """Everything about one run but the choice of runners."""
    store = moved(world.stores, run.state.planned.store) if run.state.planned else world.store
    turn = Turn(run=run, now=now, store=store)
    if run.distrust:
        if not run.state.finished:
            finish_distrusted(turn)
        return turn
    if run.state.finished and not _resume(turn, world):
        return turn
    run = turn.run
    turn.refusers = refusers(run.state.jobs.values())
    if run.plan is None:
        finish_invalid(turn)
        return turn
    if run.state.planned is None:
        _plan(turn, run.plan)
    expected = _expected(run.state)
    for index, planned in enumerate(run.plan.jobs):
        Step(turn=turn, world=world, fates=fates, planned=planned, index=index, expected=expected).take()
    if len(turn.outcomes) == len(run.plan.jobs):
        finish(turn, run.plan)
    return turn


def _resume(turn: Turn, world: World) -> bool:
    """Begin a new life of a finished run, if somebody wants it and all is known that it takes."""
    if not is_resumed(turn.run):
        return False
    found = resumed(turn.run, turn.store, world.sets, turn.now)
    if isinstance(found, Unknown):
        turn.pointers.add(found.pointer)
        return False
    event, state = found
    turn.add(turn.run.root, event)
    turn.run = replace(turn.run, state=state)
    return True


def _plan(turn: Turn, plan: Plan) -> None:
    count = len(plan.jobs)
    message = f"planned {count} job{'s' if count != 1 else ''} of {turn.run.spec.workflow}"
    jobs = tuple(planned.oid for planned in plan.jobs)
    turn.add(
        turn.run.root,
        Planned(
            seq=0, at=turn.now.wall, message=message, generation=turn.run.state.generation, jobs=jobs, store=turn.store
        ),
    )
    for planned in plan.jobs:
        turn.add_blob(planned)


def _expected(state: RunState) -> float | None:
    """Seconds a job of this run takes, from those that ended; None if none has."""
    seconds: list[float] = []
    for job in state.jobs.values():
        ended = job.attempts[-1].ended if job.attempts else None
        if ended and ended.times.preparing and ended.times.ended:
            seconds.append((ended.times.ended - ended.times.preparing).total_seconds())
            if len(seconds) == SAMPLE:
                break
    return max(0.0, sum(seconds) / len(seconds)) if seconds else None
