"""What fires: the code remote as it was seen and as it is now → events, each with the runs to make. No I/O, no clock.

What it must know of commits, it asks for (`Firing.lookups`): look that up, and call it again with the facts.
"""

from collections.abc import Iterator
from datetime import datetime

from dstack.model.due import Due, Moment, due
from dstack.model.ref_events import Moved, Scene, ref_event
from dstack.model.seen import HEADS, MOST_REFUSALS, SCHEDULES, Move, Seen, Trouble, path_of, pull_of
from dstack.model.trigger_facts import (
    Asking,
    CommitFacts,
    Diff,
    Event,
    Facts,
    Fired,
    Firing,
    Lacking,
    Lookups,
    Tips,
    read_commit,
)
from dstack.model.trust import TriggerRule

__all__ = [
    "CommitFacts",
    "Diff",
    "Event",
    "Facts",
    "Fired",
    "Firing",
    "Lookups",
    "Tips",
    "fire",
    "read_commit",
    "refused",
]

MAX_TIPS = 100_000


def fire(seen: Seen | None, tips: Tips, facts: Facts, now: datetime, rules: tuple[TriggerRule, ...] = ()) -> Firing:
    """All that can be told from these facts. `rules`: who may start runs."""
    refs = {path: ref for ref in tips.refs if (path := path_of(ref))}
    if len(refs) > MAX_TIPS:
        return Firing(
            problem=f"the code remote has {len(refs)} branches, tags and pull requests: triggers take {MAX_TIPS}"
        )
    if not any(path.startswith(HEADS) for path in refs):
        lost = seen is not None and any(path.startswith(HEADS) for path in seen.marks)
        return Firing(problem="the code remote shows no branches any more: what was seen there is kept" if lost else "")
    if seen is None:
        return Firing(baseline=Seen(marks={path: tips.refs[ref] for path, ref in refs.items()}))
    scene = Scene(seen=seen, tips=tips, rules=rules)
    asking = Asking(facts)
    tip = scene.tip(tips.default)
    at = _moment(tip, asking, now)
    clock = due(scene, at, asking) if at else Due()
    moved = list(_moved(refs, scene))
    events = [event for one in moved if (event := _event(one, scene, asking))]
    tidy = _tidy(refs, scene, at, clock)
    looked = {one.commit for one in moved} | ({tip} if tip else set())
    return Firing(
        events=(*tidy, *events, *clock.events),
        lookups=asking.lookups,
        next_at=clock.next_at,
        active=any(facts.commits[one].on for one in looked if one in facts.commits),
    )


def refused(event: Event, seen: Seen, reason: str) -> Move:
    """What to remember where the remote refused the runs of an event: tried again, and given up the third time.

    `reason`: the remote's words. The mark moves only when it is given up.
    """
    mark = event.move.marks[event.path] or ""
    before = seen.troubles.get(event.path)
    times = before.refusals if before and before.mark == mark else 0
    names = [run.workflow for run in event.runs]
    trouble = Trouble.of(mark, reason, refusals=times + 1, workflows=names)
    marks = event.move.marks if trouble.refusals >= MOST_REFUSALS else {}
    return Move(marks=marks, troubles={event.path: trouble})


def _moment(tip: str | None, asking: Asking, now: datetime) -> Moment | None:
    try:
        return Moment(now=now, tip=tip, facts=asking.commit(tip)) if tip else None
    except Lacking:
        return None


def _moved(refs: dict[str, str], scene: Scene) -> Iterator[Moved]:
    """In the order of their paths, so that it is the same order each time."""
    for path, ref in sorted(refs.items()):
        before, commit = scene.seen.marks.get(path), scene.tips.refs[ref]
        if before != commit and path not in scene.seen.unreadable and pull_of(path) not in scene.tips.awaited:
            yield Moved(path=path, ref=ref, before=before, commit=commit)


def _event(moved: Moved, scene: Scene, asking: Asking) -> Event | None:
    try:
        return ref_event(moved, scene, asking)
    except Lacking:
        return None


def _tidy(refs: dict[str, str], scene: Scene, at: Moment | None, clock: Due) -> tuple[Event, ...]:
    """What is gone is forgotten; what is new to the clock, or was unreadable, is recorded as it is now.

    A pull request is remembered without its ref: forges drop that and bring it back, and its number is never another's.
    """
    seen = scene.seen
    marks: dict[str, str | None] = {}
    for path in seen.unreadable:
        marks[path] = scene.tips.refs[refs[path]] if path in refs else None
    for path in seen.marks.keys() | seen.lost:
        if path not in refs and pull_of(path) is None and not path.startswith(SCHEDULES):
            marks[path] = None
    over = {path for path in seen.lost if _is_over(path, refs, scene, clock)}
    marks.update({path: scene.tips.refs[refs[path]] for path in over if path in refs})
    marks.update(clock.begun)
    marks.update(dict.fromkeys(clock.gone))
    left = seen.marks.keys() | refs.keys() | clock.begun.keys()
    troubles: dict[str, Trouble | None] = {
        path: None for path in seen.troubles if marks.get(path, "") is None or path not in left
    }
    troubles.update(_broken(scene, at))
    made = {path: None for path in seen.made if marks.get(path, "") is None or path in over}
    tidied = Event(path="", move=Move(marks=marks, troubles=troubles, made=made))
    return (tidied,) if marks or troubles or made else ()


def _is_over(path: str, refs: dict[str, str], scene: Scene, clock: Due) -> bool:
    """Whether a lost event can't come again: its ref is gone, or is back where it was; its schedule begins anew."""
    if path in scene.seen.unreadable:
        return True
    mark = scene.seen.marks.get(path)
    if path.startswith(SCHEDULES):
        return mark is None or path in clock.begun
    return path not in refs or mark == scene.tips.refs[refs[path]]


def _broken(scene: Scene, at: Moment | None) -> dict[str, Trouble]:
    """That the file of the default branch is broken, where nothing says so yet: its schedules wait."""
    path = f"{HEADS}{scene.tips.default}"
    if at is None or not at.facts.problem:
        return {}
    if scene.seen.marks.get(path) != at.tip and path not in scene.seen.unreadable:
        return {}  # it is said by the event of that branch
    trouble = Trouble.of(at.tip, at.facts.problem)
    return {} if scene.seen.troubles.get(path) == trouble else {path: trouble}
