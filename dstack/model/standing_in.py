"""Lets a finished job of another run stand in for one that is ready, and says which keys new results answer. Pure."""

from dstack.model.events import Finished, Reused
from dstack.model.plan import PlannedJob
from dstack.model.reuse import Answer, Lookup, finished_answer, may_reuse, run_name
from dstack.model.states import JobState
from dstack.model.status import Status
from dstack.model.turn import Turn
from dstack.model.world import World


def stood_in(turn: Turn, planned: PlannedJob, state: JobState, world: World) -> bool:
    """Whether another job stands in for this ready one, or it isn't known yet: then the job has to wait.

    It is asked once, before the first attempt.
    """
    if world.cache is None or state.attempts or not may_reuse(turn.run.spec, planned.job):
        return False
    if planned.oid in world.cache:
        turn.unsure.add(planned.oid)
        answer = world.cache[planned.oid]
        if answer is not None:
            _reuse(turn, planned, state, answer)
        return answer is not None
    parts = turn.parts(planned.job)
    if parts is None:
        return False
    turn.unsure.add(planned.oid)
    turn.lookups[planned.oid] = Lookup(store=turn.store, key=parts.key)
    return True


def tell_answer(turn: Turn, planned: PlannedJob, finished: Finished, world: World) -> None:
    """What was DONE just now answers its key from now on, also where it was itself not allowed to be reused."""
    done = finished.status is Status.DONE and finished.attempt is not None
    if world.cache is None or not done or not planned.job.cache:
        return
    parts = turn.parts(planned.job)
    if parts is not None:
        answer = finished_answer(str(turn.run.key), planned.id, finished)
        turn.answers[Lookup(store=turn.store, key=parts.key)] = answer


def _reuse(turn: Turn, planned: PlannedJob, state: JobState, answer: Answer) -> None:
    event = Reused(
        seq=0,
        at=turn.now.wall,
        message=f"reused from {run_name(answer.run)} ({answer.job})",
        generation=state.generation,
        run=answer.run,
        job=answer.job,
        manifest=answer.manifest,
        log=answer.log,
    )
    turn.add(planned.oid, event)
    turn.outcomes[planned.id] = (Status.DONE, answer.manifest)
