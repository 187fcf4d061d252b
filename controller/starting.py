"""What was found → the changes of one push: runs under their names, and the memory; and what its answer means."""

import logging
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import count

import msgspec

from controller.backoff import Backoff
from controller.firing import Found, Happened, with_trouble
from dstack.ledger.push import LOCKED
from dstack.ledger.triggered import Order
from dstack.model import refs, seen, tags
from dstack.model.errors import DstackError, Invalid
from dstack.model.firing import Event, refused
from dstack.model.observation import Change, CreateRun, Observation, Outcome, Pushed, RunRecord, SetSeen
from dstack.model.problems import shown
from dstack.model.run_names import triggered_name
from dstack.model.runspec import TagContent
from dstack.model.seen import Move
from dstack.model.tags import TaggedFiles, TaggedRun
from dstack.model.workflow import TagNeed
from dstack.model.world import Moment, World

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One push: `events` with their runs, or `refusal`: only that an event was refused."""

    changes: tuple[Change, ...]
    events: tuple[Event, ...] = ()
    memory: seen.Seen | None = None
    refusal: bool = False


@dataclass(slots=True, kw_only=True)
class Starting:
    """Remembers what the remote has refused. `tagged` reads what a tag names, at its id; raises Invalid."""

    entropy: Callable[[], str]
    jitter: Callable[[], float]
    tagged: Callable[[str], TaggedRun | TaggedFiles]
    _waits: dict[str, Backoff] = field(default_factory=dict)
    _until: Backoff = field(default_factory=Backoff)
    _refusals: dict[str, Move] = field(default_factory=dict)
    _singly: bool = False

    def offer(self, found: Found, world: World, look: Observation, now: Moment) -> Offer | None:
        """What is to be pushed now, if anything is. `look` must show the memory that `found` is of."""
        if now.ticks < self._until.until:
            return None
        if found.baseline is not None:
            return Offer(changes=(SetSeen(move=Move(marks=found.baseline.marks)),))
        if self._refusals:
            return Offer(changes=(SetSeen(move=seen.joined(self._refusals.values())),), refusal=True)
        ready = [one for one in found.happened if not self._waiting(one.event.path, now.ticks)]
        if not ready:
            return None
        some = ready[:1] if self._singly else ready
        runs: list[CreateRun] = []
        events = [self._event(one, world, look, now, runs) for one in some]
        if found.memory is not None:
            keys = {run.spec.trigger.key for run in runs if run.spec.trigger}
            events = [event.making(keys, found.memory) for event in events]
        moves = seen.joined(event.move for event in events)
        return Offer(changes=(*runs, SetSeen(move=moves)), events=tuple(events), memory=look.seen)

    def settle(self, settled: AbstractSet[str], now: Moment) -> Offer | None:
        """That these paths' runs were seen."""
        if now.ticks < self._until.until:
            return None
        return Offer(changes=(SetSeen(move=Move(made=dict.fromkeys(settled))),))

    def pushed(self, offer: Offer, result: Pushed, now: Moment) -> None:
        """What follows from the remote's answer."""
        if result.won:
            self._won(offer)
        elif Outcome.LOST in result.outcomes.values():
            self._until = self._until.after_conflict(now.ticks, self.jitter())
        elif len(offer.events) > 1:
            self._singly = True
        else:
            self._refused(offer, result, now)

    def failed(self, error: DstackError, now: Moment) -> None:
        """It isn't known what became of the push, or it could not be made at all."""
        self._until = self._until.after_outage(now.ticks, self.jitter(), error)

    def next_at(self, now: float) -> float | None:
        """When something may be offered that has waited, in ticks."""
        moments = [one.until for one in (self._until, *self._waits.values())]
        return min((moment for moment in moments if moment > now), default=None)

    def _won(self, offer: Offer) -> None:
        self._until = Backoff()
        if offer.refusal:
            self._refusals = {}
        for event in offer.events:
            self._waits.pop(event.path, None)
        for change in offer.changes:
            if isinstance(change, CreateRun) and (trigger := change.spec.trigger):
                what = trigger.slot or f"{trigger.ref} at {trigger.commit[:12]}"
                LOG.info("%s: started by %s (%s)", change.spec.run, trigger.event, what)

    def _refused(self, offer: Offer, result: Pushed, now: Moment) -> None:
        reasons = sorted(set(result.reasons.values()), key=lambda reason: reason.startswith("another ref"))
        reason = reasons[0] if reasons else "no reason given"
        self._singly = False
        if not offer.events or not offer.events[0].runs or reason.startswith(LOCKED):
            LOG.error("the state remote refuses to have triggers remembered: %s", reason)
            self._until = self._until.after_refusal(now.ticks, self.jitter())
            return
        event = offer.events[0]
        LOG.error("the state remote refuses what %s starts: %s", event.path, reason)
        if offer.memory is not None:
            self._refusals[event.path] = refused(event, offer.memory, reason)
        self._waits[event.path] = self._waits.get(event.path, Backoff()).after_refusal(now.ticks, self.jitter())

    def _waiting(self, path: str, now: float) -> bool:
        return path in self._waits and now < self._waits[path].until

    def _event(self, one: Happened, world: World, look: Observation, now: Moment, runs: list[CreateRun]) -> Event:
        """The event, with its runs added to `runs`; what can't run because of a tag is remembered."""
        reasons: list[tuple[str, str]] = []
        for order in one.orders:
            name = _name(order, look, {run.spec.run for run in runs})
            if name is None:
                continue
            try:
                runs.append(self._made(order, name, world, now))
            except Invalid as error:
                reasons.append((order.fired.workflow, str(error)))
        return with_trouble(one.event, reasons)

    def _made(self, order: Order, name: str, world: World, now: Moment) -> CreateRun:
        spec = msgspec.structs.replace(
            order.spec,
            repository=world.repository,
            run=name,
            tags=dict(self._tags(order, world)),
            submitted_at=now.wall.replace(microsecond=0),
            nonce=self.entropy(),
        )
        return CreateRun(spec=spec, workflows=order.workflows, variables=order.variables, parentless=order.parentless)

    def _tags(self, order: Order, world: World) -> Iterator[tuple[str, TagContent]]:
        for need in order.needs:
            if need.tag not in world.tags:
                msg = f"it depends on the tag {shown(need.tag)}, which there is not: `dstack tag RUN {need.tag}`"
                raise Invalid(msg)
            oid = world.tags[need.tag]
            what = self.tagged(oid)
            if isinstance(what, TaggedFiles):
                yield need.tag, tags.content_of_files(what, oid)
            else:
                yield need.tag, _content_of_run(need, what, world)


def _content_of_run(need: TagNeed, what: TaggedRun, world: World) -> TagContent:
    view = next((run for run in world.runs if run.root == what.root), None)
    if view is None or view.plan is None:
        msg = f"{need.workflow}:{need.tag} can't be used: its run {what.run} was archived, or is gone"
        raise Invalid(msg)
    tags.check_need(need, what.run, view.plan, view.state)
    return tags.content_of_run(view.root, view.plan, view.state)


def _name(order: Order, look: Observation, taken: AbstractSet[str]) -> str | None:
    """The first free name; None where a run of this very key is there already: a push of which only half survived."""
    trigger = order.fired.trigger
    for number in count(1):
        name = triggered_name(order.fired.workflow, trigger, number)
        record = look.runs.get(name)
        if isinstance(record, RunRecord) and record.spec.trigger and record.spec.trigger.key == trigger.key:
            return None
        if name not in taken and refs.run_branch(name) not in look.refs:
            return name
    return None
