"""The runners that live, with the room that is left on each."""

from collections.abc import Iterable, Mapping

from dstack.model.fates import RunnerFates
from dstack.model.job import Job, Reason
from dstack.model.placing import Room
from dstack.model.pool import Heartbeat, Phase, RunnerState
from dstack.model.turn import Turn
from dstack.model.world import RunnerView, World

# What a runner says of itself is cut to so many characters.
SENTENCE = 200


def rooms_of(world: World, turns: Iterable[Turn], fates: RunnerFates) -> list[Room]:
    """Live runners with what is left of them beside the open attempts, and revoked ones they still show at work."""
    rooms = {runner.name: room_of(runner) for runner in world.runners.values() if is_usable(runner, fates)}
    counted: set[str] = set()
    for turn in turns:
        for item in turn.open:
            counted.add(item.key)
            if item.assigned.runner in rooms:
                rooms[item.assigned.runner].take(item.planned.job)
    for name, key in _busy(world):
        if name in rooms and key not in counted and (job := _revoked_job(world, name, key)):
            rooms[name].take(job)
    return list(rooms.values())


def is_usable(runner: RunnerView, fates: RunnerFates) -> bool:
    """Whether it lives, as far as anybody can tell."""
    here = runner.registration.state is not RunnerState.GONE
    return here and runner.watched.proven and runner.name not in fates.lost


def room_of(runner: RunnerView) -> Room:
    """All of a runner, with nothing taken from it yet."""
    registration = runner.registration
    return Room(
        runner=runner.name,
        total=registration.capacity,
        executors=frozenset(registration.executors),
        labels=frozenset(registration.labels),
        volumes=frozenset(registration.volumes),
        interruptible=registration.interruptible,
        closed=_closed(runner),
        pauses=pauses_of(runner),
        private=registration.private,
        forks=registration.forks,
        cpu=registration.capacity.cpu,
        memory=registration.capacity.memory,
        gpus=registration.capacity.gpus,
    )


def _closed(runner: RunnerView) -> str:
    """Why it takes nothing now, though it lives."""
    if runner.registration.state is RunnerState.DRAINING:
        return "is draining"
    return f"takes no jobs now: {pause[:SENTENCE]}" if (pause := _pause(runner)) else ""


def _pause(runner: RunnerView) -> str:
    """Why this start of the runner begins nothing, by its heartbeat."""
    beat = beat_of(runner)
    return beat.pause if beat else ""


def pauses_of(runner: RunnerView) -> Mapping[str, str]:
    """The same of its executors, by name."""
    beat = beat_of(runner)
    return {name: why[:SENTENCE] for name, why in beat.pauses.items()} if beat else {}


def beat_of(runner: RunnerView) -> Heartbeat | None:
    """Its last heartbeat, if it is one of the very start that is registered."""
    beat = runner.watched.heartbeat
    return beat if beat and beat.start == runner.registration.start else None


def _busy(world: World) -> Iterable[tuple[str, str]]:
    for name, runner in world.runners.items():
        if runner.watched.heartbeat:
            for key, phase in runner.watched.heartbeat.attempts.items():
                if phase is not Phase.ENDED:
                    yield name, key


def _revoked_job(world: World, runner: str, key: str) -> Job | None:
    """The job of an attempt that was given up as lost but, by its runner's heartbeat, still runs there."""
    job_id, _, number = key.partition(".")
    for run in world.runs:
        for attempt in run.state.job(job_id).attempts:
            lost = attempt.revoked and attempt.revoked.reason is Reason.LOST
            if lost and attempt.assigned.runner == runner and str(attempt.number) == number and run.plan:
                return next((planned.job for planned in run.plan.jobs if planned.id == job_id), None)
    return None
