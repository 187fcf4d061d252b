"""What must hold of a remote's records when a simulation is over, checked on the texts themselves."""

from collections.abc import Iterable, Iterator

from dstack.ledger.memory import MemoryLedger, MemoryRemote
from dstack.model import refs
from dstack.model.events import Assigned, Ended, Event, Finished, Reused, Revoked
from dstack.model.observation import Notes
from dstack.model.past import Past
from dstack.model.refs import CONTROLLER, RunKey
from dstack.model.status import Status
from dstack.model.views import Viewer
from dstack.model.world import RunView
from tests.simulated_runner import Machine


def broken_laws(remote: MemoryRemote, deleted: set[str], machines: Iterable[Machine], *, finished: bool) -> list[str]:
    """A sentence for each law that does not hold."""
    seen = MemoryLedger(remote).observe()
    views = Viewer(remote.blobs.get).views(seen)
    problems = [] if finished else [f"never ends: {_unfinished(views, deleted)}, {_processes(machines)}"]
    past = Past(views)
    for view in views:
        for planned in view.plan.jobs if view.plan else ():
            history = _events(remote, view.key, CONTROLLER, planned.oid)
            problems.extend(
                f"{view.key} {planned.id}: {law}"
                for law in (
                    *_job_laws(remote, view.key, planned.oid, history),
                    *_reuse_laws(view, planned.id, history, views, past),
                )
            )
        if view.state.finished and view.plan:
            loose = [job.id for job in view.plan.jobs if not view.state.job(job.id).finished]
            problems.extend(f"{view.key} is finished, but {job} is not" for job in loose)
    return problems


def _job_laws(remote: MemoryRemote, key: RunKey, oid: str, history: list[Event]) -> Iterator[str]:
    ends = [event for event in history if isinstance(event, Finished | Reused)]
    if len({end.generation for end in ends}) < len(ends):
        yield f"finished {len(ends)} times, in generations {[end.generation for end in ends]}"
    if [event.seq for event in history] != list(range(1, len(history) + 1)):
        yield "its note's numbers have gaps or doubles"
    numbers = [event.attempt for event in history if isinstance(event, Assigned)]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"its attempts are numbered {numbers}"
    for end in ends:
        if isinstance(end, Finished) and end.attempt is not None and not _revoked(history, end.attempt):
            yield from _claim_laws(remote, key, oid, history, end)
    yield from _one_at_a_time(history)


def _reuse_laws(view: RunView, job: str, history: list[Event], views: Iterable[RunView], past: Past) -> Iterator[str]:
    """A job that stands in was DONE by an attempt, has the same key, and made what is taken over."""
    for event in history:
        if not isinstance(event, Reused):
            continue
        if any(isinstance(other, Assigned) for other in history):
            yield "reused though it had an attempt"
        origin = next((one for one in views if str(one.key) == event.run), None)
        if origin is None:
            continue  # its branch was deleted by hand
        end = origin.state.job(event.job).finished
        if not isinstance(end, Finished) or end.status is not Status.DONE or end.manifest != event.manifest:
            yield f"reused from {event.run} {event.job}, which ended so: {end}"
        mine, theirs = past.parts(str(view.key), job), past.parts(event.run, event.job)
        if mine is None or theirs is None or mine.key != theirs.key:
            yield f"reused from {event.run} {event.job}, whose key is another: {mine} and {theirs}"


def _claim_laws(remote: MemoryRemote, key: RunKey, oid: str, history: list[Event], end: Finished) -> Iterator[str]:
    """A finish that names an attempt repeats what the very runner of that attempt claimed."""
    given = next(event for event in history if isinstance(event, Assigned) and event.attempt == end.attempt)
    claims = [
        event
        for event in _events(remote, key, given.runner, oid)
        if isinstance(event, Ended)
        and (event.attempt, event.instance, event.nonce) == (given.attempt, given.instance, given.nonce)
    ]
    if not claims:
        yield f"finished {end.status} by attempt {end.attempt}, which nobody reported"
    elif (claims[0].status, claims[0].reason) != (end.status, end.reason):
        yield f"finished {end.status}, but {claims[0].status} was reported first"
    if len(claims) > 1:
        yield f"attempt {end.attempt} was reported {len(claims)} times"


def _one_at_a_time(history: list[Event]) -> Iterator[str]:
    """Between two assignments stands a revocation, and behind an end only another generation."""
    open_attempt: int | None = None
    over = 0
    for event in history:
        if isinstance(event, Assigned | Revoked | Finished | Reused) and event.generation <= over:
            yield f"something follows its end: {event}"
        if isinstance(event, Assigned):
            if open_attempt is not None:
                yield f"attempt {event.attempt} was assigned while {open_attempt} was open"
            open_attempt = event.attempt
        elif isinstance(event, Revoked):
            open_attempt = None
        elif isinstance(event, Finished | Reused):
            open_attempt, over = None, event.generation


def _revoked(history: list[Event], attempt: int) -> bool:
    return any(isinstance(event, Revoked) and event.attempt == attempt for event in history)


def _events(remote: MemoryRemote, key: RunKey, writer: str, oid: str) -> list[Event]:
    pair = remote.refs.get(refs.note(key, writer))
    return list(pair[1].on(oid).events) if pair and isinstance(pair[1], Notes) else []


def _unfinished(views: Iterable[RunView], deleted: set[str]) -> list[str]:
    return [str(view.key) for view in views if not view.state.finished and view.key.name not in deleted]


def _processes(machines: Iterable[Machine]) -> list[str]:
    return [f"{machine.name} runs {key}" for machine in machines for key in machine.processes]


def reused(remote: MemoryRemote) -> int:
    """How many jobs were."""
    views = Viewer(remote.blobs.get).views(MemoryLedger(remote).observe())
    return sum(isinstance(state.finished, Reused) for view in views for state in view.state.jobs.values())
