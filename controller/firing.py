"""One look at the code remote: what has moved since it was seen, and the runs that this starts, ready to be made."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from dstack.ledger.triggered import Order
from dstack.model.errors import Invalid
from dstack.model.firing import Event, Facts, Fired, Firing, Lookups, Tips, fire
from dstack.model.ref_events import BRANCHES
from dstack.model.seen import PULLS_BEGAN, Move, Seen, Trouble, path_of, pull_of
from dstack.model.trust import TriggerRule

# Each round of questions follows from the answers to the one before; more than three there never are.
MOST_ROUNDS = 10
# So many events that may wait are not gathered any longer.
MOST_WAITING = 100
# Runs of one push.
MOST_RUNS = 200


class CodeSource(Protocol):
    """The code remote. Methods may raise Unavailable, Failed. For one thread."""

    @property
    def facts(self) -> Facts:
        """All that was looked up and still counts."""
        ...

    def tips(self, *, pulls: bool) -> Tips:
        """Where everything is now; the very same value where nothing has moved. `pulls`: pull requests, too."""
        ...

    def look_up(self, wanted: Lookups) -> None:
        """Learn these."""
        ...

    def forget(self) -> None:
        """What may be otherwise by now is to be asked anew."""
        ...

    def order(self, fired: Fired) -> Order:
        """The run that is to be made. Raises Invalid where it can't be."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is looked with: the memory, who may start runs, the time, and what the look before has found.

    `bases` adds to tips what the forge says of pull requests.
    """

    seen: Seen | None
    rules: tuple[TriggerRule, ...]
    now: datetime
    last: "Found | None"
    bases: Callable[[Tips], Tips] = lambda tips: tips


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """An event, and those of its runs that can be made; why others can't stands in its move."""

    event: Event
    orders: tuple[Order, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a look has found, against this memory. `pulls`: whether some workflow wants pull requests.

    `problem`: why nothing at all can be told.
    """

    memory: Seen | None
    rules: tuple[TriggerRule, ...]
    tips: Tips
    happened: tuple[Happened, ...] = ()
    baseline: Seen | None = None
    next_at: datetime | None = None
    active: bool = False
    pulls: bool = False
    problem: str = ""

    def is_of(self, seen: Seen | None) -> bool:
        """Whether it still counts: the memory hasn't moved."""
        mine = self.memory
        return (mine and (mine.oid, mine.lost)) == (seen and (seen.oid, seen.lost))


def find(code: CodeSource, look: Look) -> Found:
    """Look. The very same value as the last one where nothing has happened. Raises DstackError."""
    last = look.last
    known = last.pulls if last else False
    tips = look.bases(code.tips(pulls=known))
    if last is not None and _is_same(last, tips, look):
        return last
    code.forget()
    firing = _fired(code, look, tips, pulls=known)
    pulls = _wants_pulls(code.facts, tips)
    if pulls and not known:
        tips = look.bases(code.tips(pulls=True))
        firing = _fired(code, look, tips, pulls=True)
    return Found(
        memory=look.seen,
        rules=look.rules,
        tips=tips,
        happened=tuple(_happened(code, firing)),
        baseline=firing.baseline,
        next_at=firing.next_at,
        active=firing.active,
        pulls=pulls,
        problem=firing.problem,
    )


def _is_same(last: Found, tips: Tips, look: Look) -> bool:
    if not last.is_of(look.seen) or last.rules != look.rules or last.tips != tips:
        return False
    return last.next_at is None or look.now < last.next_at


def _fired(code: CodeSource, look: Look, tips: Tips, *, pulls: bool) -> Firing:
    """With every fact looked up that is wanted. `pulls`: pull requests are among the tips, if there are any."""
    begun = _pulls_begun(look.seen, tips) if pulls else None
    known = _without_pulls(tips) if begun else tips
    firing = fire(look.seen, known, code.facts, look.now, look.rules)
    for _ in range(MOST_ROUNDS):
        if not firing.lookups:
            break
        code.look_up(firing.lookups)
        firing = fire(look.seen, known, code.facts, look.now, look.rules)
    return replace(firing, events=(begun, *firing.events)) if begun and not firing.baseline else firing


def _pulls_begun(seen: Seen | None, tips: Tips) -> Event | None:
    """The first look at pull requests records those there are, be it none, as the first start does with branches."""
    pulls = {path: oid for ref, oid in tips.refs.items() if (path := path_of(ref)) and pull_of(path) is not None}
    tip = tips.refs.get(f"{BRANCHES}{tips.default}")
    if seen is None or PULLS_BEGAN in seen.marks or tip is None:
        return None
    return Event(path=PULLS_BEGAN, move=Move(marks={**pulls, PULLS_BEGAN: tip}))


def _without_pulls(tips: Tips) -> Tips:
    refs = {ref: oid for ref, oid in tips.refs.items() if not ((path := path_of(ref)) and pull_of(path) is not None)}
    return replace(tips, refs=refs)


def _wants_pulls(facts: Facts, tips: Tips) -> bool:
    """Whether what is at any tip, as far as it was looked at, starts something for pull requests."""
    there = set(tips.refs.values())
    return any(on.pull_request for oid, one in facts.commits.items() if oid in there for on in one.on.values())


def _happened(code: CodeSource, firing: Firing) -> Iterator[Happened]:
    """What is to be written down now, with the runs; as many as go into one push."""
    waiting = sum(event.can_wait for event in firing.events)
    if waiting == len(firing.events) and waiting <= MOST_WAITING:
        return
    made = 0
    for event in firing.events:
        one = _ready(code, event)
        made += len(one.orders)
        if made > MOST_RUNS and made > len(one.orders):
            return
        yield one


def _ready(code: CodeSource, event: Event) -> Happened:
    orders: list[Order] = []
    reasons: list[tuple[str, str]] = []
    for fired in event.runs:
        try:
            orders.append(code.order(fired))
        except Invalid as error:
            reasons.append((fired.workflow, str(error)))
    return Happened(event=with_trouble(event, reasons), orders=tuple(orders))


def with_trouble(event: Event, reasons: list[tuple[str, str]]) -> Event:
    """The event, remembering why these of its workflows can't run: pairs of a workflow and a reason."""
    if not reasons:
        return event
    mark = event.move.marks.get(event.path) or ""
    trouble = Trouble.of(mark, reasons[0][1], workflows=[name for name, _ in reasons])
    return replace(event, move=replace(event.move, troubles={**event.move.troubles, event.path: trouble}))
