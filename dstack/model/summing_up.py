"""Sum up a run that ends: its verdict, and a line per job for those who read notes with git."""

from collections import Counter
from collections.abc import Iterable

from dstack.model.events import Finished, JobSummary, Reused, RunFinished
from dstack.model.job import Job, Reason, short
from dstack.model.plan import Plan
from dstack.model.states import FRESH, JobState, RunState, run_reason, run_status
from dstack.model.status import Status
from dstack.model.turn import Turn


def finish_invalid(turn: Turn) -> None:
    """What was asked for can't be planned: the run has failed."""
    turn.add(turn.run.root, _ended(turn, turn.run.problem, Reason.INVALID))


def finish_distrusted(turn: Turn) -> None:
    """Its commits aren't signed as they must be: the run has failed, and so has each job that hadn't ended."""
    run = turn.run
    for planned in run.plan.jobs if run.plan and run.state.planned else ():
        state = run.state.job(planned.id)
        if state.outcome:
            turn.outcomes[planned.id] = (state.outcome, state.manifest)
            continue
        turn.add(planned.oid, _refused(turn, state))
        turn.outcomes[planned.id] = (Status.FAILED, None)
    if run.plan and run.state.planned:
        finish(turn, run.plan)
    else:
        turn.add(run.root, _ended(turn, run.distrust, Reason.SIGNATURE))


def _refused(turn: Turn, state: JobState) -> Finished:
    last = state.open
    return Finished(
        seq=0,
        at=turn.now.wall,
        message=turn.run.distrust,
        generation=state.generation,
        status=Status.FAILED,
        reason=Reason.SIGNATURE,
        attempt=last.number if last else None,
        runner=last.assigned.runner if last else None,
    )


def finish(turn: Turn, plan: Plan) -> None:
    """Every job is finished, as `turn.outcomes` says."""
    statuses = [turn.outcomes[planned.id][0] for planned in plan.jobs]
    status = run_status(RunState(), statuses)
    ends = list(_ends(turn, plan))
    counts = dict(Counter(str(word) for word in statuses))
    reason = run_reason(((end.status, end.reason) for end in ends), status)
    words = ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
    turn.add(
        turn.run.root,
        RunFinished(
            seq=0,
            at=turn.now.wall,
            message=f"{turn.run.key.name} is {status}: {words}",
            generation=turn.run.state.generation,
            status=status,
            reason=reason,
            counts=counts,
        ),
    )
    for end in ends:
        turn.add(turn.run.root, end)


def _ended(turn: Turn, message: str, reason: Reason) -> RunFinished:
    generation = turn.run.state.generation
    return RunFinished(
        seq=0, at=turn.now.wall, message=message, generation=generation, status=Status.FAILED, reason=reason
    )


def _ends(turn: Turn, plan: Plan) -> Iterable[JobSummary]:
    for planned in plan.jobs:
        state = turn.run.state.jobs.get(planned.id, FRESH)
        new = [event for event in turn.events.get(planned.oid, ()) if isinstance(event, Finished | Reused)]
        end = new[-1] if new else state.finished
        finished = end if isinstance(end, Finished) else None
        yield JobSummary(
            seq=0,
            at=turn.now.wall,
            message=_summary(planned.job, end),
            generation=turn.run.state.generation,
            job=short(planned.oid),
            workflow=planned.job.workflow,
            status=finished.status if finished else Status.DONE,
            reason=finished.reason if finished else Reason.OK,
            exit_code=finished.exit_code if finished else None,
        )


def _summary(job: Job, end: Finished | Reused | None) -> str:
    if not isinstance(end, Finished):
        return f"{job.title}: {Status.DONE}, {end.message if end else 'reused'}"
    where = f" on {end.runner}" if end.runner else ""
    return f"{job.title}: {end.status} ({end.reason}){where}"
