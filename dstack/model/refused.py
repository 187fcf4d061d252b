"""Runners that refused a run because of its signature, and who else might take its jobs. Pure (DESIGN section 12)."""

from collections.abc import Iterable

from dstack.model.fates import RunnerFates
from dstack.model.job import Job, Reason
from dstack.model.placing import Candidate, objection
from dstack.model.rooms import is_usable, room_of
from dstack.model.states import AttemptState, JobState
from dstack.model.world import RunView, World


def is_refusal(attempt: AttemptState) -> bool:
    """Whether its runner would not begin it, since it doesn't trust the run, or the assignment."""
    if attempt.revoked:
        return attempt.revoked.reason is Reason.SIGNATURE
    return attempt.ended is not None and attempt.ended.reason is Reason.SIGNATURE


def refusers(states: Iterable[JobState]) -> frozenset[str]:
    """Who refused any of these jobs in their generation: they are asked last about the others."""
    return frozenset(one.assigned.runner for state in states for one in state.tried if is_refusal(one))


def may_go_elsewhere(run: RunView, job: Job, state: JobState, world: World, fates: RunnerFates) -> bool:
    """Whether a live runner could take the job that hasn't refused it yet. Each is asked once in a generation."""
    asked = Candidate(
        key="",
        job=job,
        order="",
        only=run.spec.options.only,
        refused=refusers([state]),
        fork=is_of_fork(run),
    )
    rooms = (room_of(runner) for runner in world.runners.values() if is_usable(runner, fates))
    return any(not objection(asked, room) for room in rooms if not room.private or room.runner == asked.only)


def is_of_fork(run: RunView) -> bool:
    """Whether its code is from a fork of the repository."""
    return run.spec.trigger is not None and run.spec.trigger.fork
