"""Whether a machine can take the jobs of a `--local` run at all: asked before anything is submitted."""

from cli.outlook import outlooks
from cli.preparing import Prepared
from cli.session import Seen, Session
from dstack.model.errors import Invalid
from dstack.model.job import Job
from dstack.model.placing import Room, misfit
from runner.parts import RunnerParts

ELSEWHERE = "leave out --local for a pool that can"


def refuse_misfits(session: Session, seen: Seen, prepared: Prepared, parts: RunnerParts) -> None:
    """Raises Invalid for a job that this machine can never take, and for which nothing is known to stand in.

    A job for which that can't be told in time fails when its turn comes.
    """
    room = Room(
        runner=parts.name,
        total=parts.capacity,
        executors=frozenset(parts.executors),
        labels=frozenset(parts.labels),
        volumes=frozenset(parts.volumes),
        interruptible=parts.interruptible,
    )
    plan = prepared.plan()
    whys = {one.id: why for one in plan.jobs if (why := misfit(one.job, room))}
    if not whys:
        return
    jobs = {one.id: one.job for one in plan.jobs}
    for job_id, outlook in outlooks(session, seen, prepared.spec, plan):
        if job_id in whys and outlook.answer is None:
            job = jobs[job_id]
            msg = f"{job.title} can't run with --local: this machine {whys[job_id]}; {_way_out(job, room)}"
            raise Invalid(msg)


def _way_out(job: Job, room: Room) -> str:
    missing = [volume.name for volume in job.volumes if volume.name not in room.volumes]
    if missing:
        return (
            f"`dstack-runner config {' '.join(f'--volume {name}=DIR' for name in missing)}` offers it, or {ELSEWHERE}"
        )
    return ELSEWHERE
