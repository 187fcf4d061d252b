"""A new life of a finished run's jobs, and what the next attempt of a job starts from. Pure (DESIGN section 6)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dstack.model import keys
from dstack.model.events import Resumed
from dstack.model.job import Job
from dstack.model.plan import Plan
from dstack.model.states import AttemptState, JobState, RunState
from dstack.model.status import Status
from dstack.model.world import Moment, RunView, Sets

# A key in the store at this URL that leads to an artifact set: a manifest's own, or that of a save.
Pointer = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """What has to be looked up before there is an answer."""

    pointer: Pointer


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A set that an attempt could start from. `sure`: the digest needs no looking up."""

    pointer: Pointer
    digest: str | None = None
    sure: bool = False


def is_resumed(run: RunView) -> bool:
    """Whether somebody wants a finished run to go on, and it can."""
    wanted = run.wanted.generation == run.state.generation + 1
    return run.state.finished is not None and wanted and why_not(run) is None


def why_not(run: RunView) -> str | None:
    """Why a run can't be resumed; None where it can."""
    if run.state.finished is None:
        return "it has not ended yet"
    if run.plan is None:
        return "its jobs can't be planned: submit it again"
    if run.spec.options.only is not None:
        return "it ran with --local, and its runner is gone: `dstack run --from` runs it again"
    if not _unfinished(run.plan, run.state):
        return "all its jobs are DONE: `dstack run --from` runs it again"
    return None


def awaited(run: RunView) -> RunView:
    """The run as it is to go on, before a controller has looked what that takes."""
    if run.plan is None or not is_resumed(run):
        return run
    return replace(run, state=_renewed(run.state, _unfinished(run.plan, run.state)))


def resumed(run: RunView, store: str, sets: Sets, now: Moment) -> tuple[Resumed, RunState] | Unknown:
    """The event that begins the new life, and the run's state behind it."""
    plan = run.plan or Plan(jobs=())
    again = _again(plan, run.state, store, sets)
    if isinstance(again, Unknown):
        return again
    generation = run.state.generation + 1
    names = tuple(planned.id for planned in plan.jobs if planned.id in again)
    event = Resumed(
        seq=0,
        at=now.wall,
        message=f"resumed: {len(names)} job{'' if len(names) == 1 else 's'} of {run.key.name} "
        f"{'from nothing' if run.wanted.clean else 'from what was saved'}",
        generation=generation,
        jobs=names,
    )
    return event, _renewed(run.state, again)


def _renewed(state: RunState, again: set[str]) -> RunState:
    generation = state.generation + 1
    known = {name: JobState() for name in again} | dict(state.jobs)
    jobs = {
        job: replace(one, generation=generation, finished=None) if job in again else one for job, one in known.items()
    }
    return replace(state, generation=generation, finished=None, summaries=(), jobs=jobs)


def restored(run: RunView, job_id: str, job: Job, store: str, sets: Sets) -> str | Unknown | None:
    """The digest of the set that the job's next attempt starts from: what was saved last, and is there."""
    for one in _candidates(run, job_id, job, store):
        if one.sure:
            return one.digest
        found = _look(one.pointer, sets)
        if isinstance(found, Unknown) or found is not None:
            return found
    return None


def _candidates(run: RunView, job_id: str, job: Job, store: str) -> Iterator[Candidate]:
    """The latest first. Sets of this very life were there a moment ago."""
    state = run.state.job(job_id)
    clean = run.wanted.clean and run.wanted.generation == run.state.generation
    for attempt in reversed(state.tried if clean else state.attempts):
        sure = attempt.assigned.generation == state.generation
        if digest := _left_behind(attempt):
            yield Candidate(pointer=(store, keys.manifest(digest)), digest=digest, sure=sure)
        if job.saves and not (attempt.revoked and not attempt.revoked.begun):
            yield Candidate(pointer=(store, keys.saved(str(run.key), job_id, attempt.number)))
        if digest := attempt.assigned.restore:
            yield Candidate(pointer=(store, keys.manifest(digest)), digest=digest, sure=sure)


def _left_behind(attempt: AttemptState) -> str | None:
    """The set that the attempt's end has named."""
    if attempt.ended is not None:
        return attempt.ended.manifest
    revoked = attempt.revoked
    return revoked.manifest if revoked and revoked.manifest != attempt.assigned.restore else None


def _again(plan: Plan, state: RunState, store: str, sets: Sets) -> set[str] | Unknown:
    """What isn't DONE; and what is, but left artifacts that are needed again and are gone."""
    again = _unfinished(plan, state)
    for planned in reversed(plan.jobs):
        if planned.id not in again:
            continue
        for need in planned.job.needs:
            digest = state.job(need.job).manifest
            if need.job in again or digest is None:
                continue
            found = _look((store, keys.manifest(digest)), sets)
            if isinstance(found, Unknown):
                return found
            if found is None:
                again.add(need.job)
    return again


def _unfinished(plan: Plan, state: RunState) -> set[str]:
    return {planned.id for planned in plan.jobs if state.job(planned.id).outcome is not Status.DONE}


def _look(pointer: Pointer, sets: Sets) -> str | Unknown | None:
    if sets is None:
        return None
    return sets[pointer] if pointer in sets else Unknown(pointer=pointer)
