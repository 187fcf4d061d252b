"""Schedules of the default branch that are due → events; each workflow at most once, for its latest slot."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache, partial

from dstack.model.cron import last_slot, next_slot
from dstack.model.ref_events import BRANCHES, Scene, What, key_of, trouble_of
from dstack.model.runspec import Trigger, TriggerEvent
from dstack.model.seen import SCHEDULES, Move, schedule_path, slot_text, slot_time
from dstack.model.trigger_facts import Asking, CommitFacts, Event, Fired, Lacking
from dstack.model.triggers import Schedule

AHEAD = timedelta(days=1)

_next_slot = lru_cache(maxsize=10_000)(next_slot)  # asked at every poll, and the same until it is due


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Events, schedules that are new with now as their mark, those that are no more, and when one is due next."""

    events: tuple[Event, ...] = ()
    begun: Mapping[str, str] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()
    next_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The time, and what the commit at the tip of the default branch then says."""

    now: datetime
    tip: str
    facts: CommitFacts


def due(scene: Scene, at: Moment, asking: Asking) -> Due:
    """What the clock says. Where the file of the default branch is broken, schedules wait."""
    if at.facts.problem:
        return Due()
    known = {
        workflow: {schedule_path(workflow, one): one for one in on.schedule} for workflow, on in at.facts.on.items()
    }
    paths = {path: schedule for schedules in known.values() for path, schedule in schedules.items()}
    remembered = {path for path in (*scene.seen.marks, *scene.seen.unreadable) if path.startswith(SCHEDULES)}
    marks = {path: mark for path in paths if (mark := _mark(path, scene, at.now))}
    begun = {path: slot_text(at.now) for path in paths if path not in marks}
    events = tuple(_events(known, marks, partial(_event, scene=scene, at=at, asking=asking), at.now))
    moved = {path: mark for event in events for path, mark in event.move.marks.items() if mark}
    latest = {**marks, **begun, **moved}
    times = [_next_slot(one, slot_time(latest[path])) for path, one in paths.items()]
    return Due(events=events, begun=begun, gone=frozenset(remembered - paths.keys()), next_at=min(times, default=None))


def _mark(path: str, scene: Scene, now: datetime) -> str | None:
    """The slot that is remembered; None where there is none, or none that can be: then a clock was wrong."""
    mark = scene.seen.marks.get(path)
    return mark if mark and slot_time(mark) <= now + AHEAD else None


def _events(
    known: Mapping[str, Mapping[str, Schedule]],
    marks: Mapping[str, str],
    event: Callable[[str, Mapping[str, str]], Event],
    now: datetime,
) -> Iterator[Event]:
    for workflow, schedules in known.items():
        slots = {path: slot for path, one in schedules.items() if (slot := _due(one, marks.get(path), now))}
        if slots:
            with suppress(Lacking):
                yield event(workflow, slots)


def _due(schedule: Schedule, mark: str | None, now: datetime) -> str | None:
    """The last slot since the mark."""
    if mark is None or _next_slot(schedule, slot_time(mark)) > now:
        return None
    slot = last_slot(schedule, slot_time(mark), now)
    return slot_text(slot) if slot else None


def _event(workflow: str, slots: Mapping[str, str], scene: Scene, at: Moment, asking: Asking) -> Event:
    path, slot = next(iter(slots)), max(slots.values())
    default = f"{BRANCHES}{scene.tips.default}"
    what = What(path=path, ref=default, commit=at.tip, mark=slots[path], workflows=(workflow,))
    trouble = trouble_of(what, at.facts, scene, asking)
    ref = f"{SCHEDULES}{workflow}"
    trigger = Trigger(
        event=TriggerEvent.SCHEDULE,
        ref=ref,
        commit=at.tip,
        slot=slot,
        key=key_of(workflow, TriggerEvent.SCHEDULE, ref, slot, scene.seen.against(path)),
        by=at.facts.by,
    )
    troubles = {path: trouble} if trouble or path in scene.seen.troubles else {}
    runs = () if trouble else (Fired(workflow=workflow, trigger=trigger),)
    return Event(path=path, move=Move(marks=slots, troubles=troubles), runs=runs)
