"""Gives runs the tag that `run --tag` asked for, when they are DONE: once, in a push of its own."""

from collections.abc import Iterable, Iterator

from dstack.model.events import Tagged
from dstack.model.observation import AppendNotes, Change, SetTag
from dstack.model.refs import CONTROLLER
from dstack.model.status import Status
from dstack.model.world import Moment, RunView, World


def untagged(world: World) -> list[RunView]:
    """The runs that wait for their tags, the one that was submitted last at the end: of two, it keeps the tag."""
    return sorted((run for run in world.runs if _waits(run)), key=lambda run: run.spec.submitted_at)


def tag_changes(world: World, waiting: Iterable[RunView], now: Moment) -> tuple[Change, ...]:
    """Each tag once: that of the first run which waits for it."""
    first: dict[str, RunView] = {}
    for run in waiting:
        first.setdefault(run.spec.options.tag or "", run)
    return tuple(change for tag, run in first.items() for change in _given(tag, run, world, now))


def _given(tag: str, run: RunView, world: World, now: Moment) -> Iterator[Change]:
    """The event says that it was given: it is not given again when somebody moves it."""
    event = Tagged(
        seq=run.lines.get(run.root, 0) + 1,
        at=now.wall,
        message=f"{run.key.name} is tagged {tag}",
        generation=run.state.generation,
        tag=tag,
    )
    yield AppendNotes(key=run.key, writer=CONTROLLER, events={run.root: (event,)})
    # A ref that already has this id would not be compared and swapped, and so count as lost.
    if world.tags.get(tag) != run.root:
        yield SetTag(tag=tag, key=run.key, root=run.root)


def _waits(run: RunView) -> bool:
    asked = run.spec.options.tag is not None and run.state.tagged is None
    return asked and run.state.finished is not None and run.state.finished.status is Status.DONE
