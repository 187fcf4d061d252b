"""What happens to the code starts runs: looked at in a thread of its own, so that no turn waits for the code remote."""

import logging
import math
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Protocol

from controller import naming
from controller.backoff import Backoff
from controller.firing import CodeSource, Found, Look, find
from controller.pull_bases import PullBases
from controller.starting import Offer, Starting
from controller.trouble import Trouble
from dstack.model import refs
from dstack.model.errors import DstackError, Invalid
from dstack.model.observation import Change, Observation, Pushed, RunRecord
from dstack.model.seen import Seen
from dstack.model.settings import Settings
from dstack.model.tags import TaggedFiles, TaggedRun
from dstack.model.world import Moment, World

LOG = logging.getLogger(__name__)

# Where nothing has triggers, the code is looked at so often only, unless a webhook tells of it.
IDLE_SECONDS = 60.0
# Looks that follow one another take one part in so many of the time at most.
DUTY = 20.0
# A storm of webhooks, of a remote elsewhere: seconds between two looks.
LEAST_SECONDS = 0.5
# That runs were seen is written so many of the pushes' intervals later.
SETTLE_INTERVALS = 2


class Triggers(Protocol):
    """What makes runs that no user asked for."""

    def turn(self, world: World, seen: Observation, settings: Settings, now: Moment) -> tuple[Change, ...]:
        """What is to be pushed, all of it or nothing; returns at once. Then `pushed` or `failed` is called."""
        ...

    def pushed(self, result: Pushed, now: Moment) -> None:
        """What became of it."""
        ...

    def failed(self, error: DstackError, now: Moment) -> None:
        """It isn't known what became of it, or it couldn't be pushed at all."""
        ...

    def next_at(self, now: Moment) -> float | None:
        """When a turn is wanted if nothing happens, in ticks."""
        ...


class NoTriggers:
    """Only users start runs."""

    def turn(self, world: World, seen: Observation, settings: Settings, now: Moment) -> tuple[Change, ...]:  # noqa: ARG002
        """See Triggers."""
        return ()

    def pushed(self, result: Pushed, now: Moment) -> None:
        """See Triggers."""

    def failed(self, error: DstackError, now: Moment) -> None:
        """See Triggers."""

    def next_at(self, now: Moment) -> float | None:  # noqa: ARG002
        """See Triggers."""
        return None


def _in_thread(work: Callable[[], None]) -> None:
    naming.begin(work, name="triggers")


def _checked(seen: Observation) -> tuple[Seen | None, AbstractSet[str]]:
    """The memory, from before the events whose runs got lost; and the paths of those whose runs are there."""
    memory = seen.seen
    if memory is None or not memory.made:
        return memory, frozenset()
    records = (record for record in seen.runs.values() if isinstance(record, RunRecord))
    lost = memory.missing({record.spec.trigger.key for record in records if record.spec.trigger})
    return (memory.rolled_back(lost) if lost else memory), memory.made.keys() - lost


def _no_files(oid: str) -> TaggedRun | TaggedFiles:
    msg = f"the tag at {oid[:12]} can't be read here"
    raise Invalid(msg)


@dataclass(slots=True, kw_only=True)
class Triggering:
    """Implements Triggers. `start` runs what it is given in a thread; `told` is called when a turn is wanted.

    `poll`: seconds between two looks at the code. `watched`: it is on this machine, so that every turn may be news.
    `jitter` gives a fresh number from 0 to 1, `entropy` fresh random text, `clock` seconds of a monotonic clock;
    `tagged` reads what a tag names; `bases` knows where pull requests go. `longest`: see `patience.pause`.
    """

    open_code: Callable[[], CodeSource]
    poll: float
    watched: bool
    jitter: Callable[[], float]
    entropy: Callable[[], str]
    told: Callable[[], None]
    tagged: Callable[[str], TaggedRun | TaggedFiles] = _no_files
    bases: PullBases | None = None
    start: Callable[[Callable[[], None]], None] = _in_thread
    clock: Callable[[], float] = time.monotonic
    longest: float | None = None
    looks: int = 0
    _starting: Starting = field(init=False)
    _code: CodeSource | None = None
    _found: Found | None = None
    _error: Exception | None = None
    _busy: bool = False
    _news: bool = True
    _looked: float = float("-inf")
    _least: float = 0.0
    _settle_at: float | None = None
    _backoff: Backoff = field(default_factory=Backoff)
    _trouble: Trouble = field(default_factory=Trouble)
    _offer: Offer | None = None

    def __post_init__(self) -> None:
        """What is remembered of refusals belongs to this controller."""
        self._starting = Starting(entropy=self.entropy, jitter=self.jitter, tagged=self.tagged)

    def wake(self) -> None:
        """The code may have changed. From any thread."""
        self._news = True

    def retry(self) -> None:
        """Wait no longer for what has failed. From any thread."""
        self._backoff, self._news = Backoff(), True

    def turn(self, world: World, seen: Observation, settings: Settings, now: Moment) -> tuple[Change, ...]:
        """See Triggers."""
        self._news = self._news or self.watched
        if seen.seen is None and refs.SEEN in seen.refs:
            return ()  # a memory that can't be read is told among the problems of the observation
        memory, settled = _checked(seen)
        if changes := self._offered(memory, world, seen, now):
            return changes
        if not self._busy and self._due(now) <= now.ticks:
            self._begin(self._view(memory, settings, now), now)
            if changes := self._offered(memory, world, seen, now):
                return changes
        return self._settled(settled, world, now)

    def pushed(self, result: Pushed, now: Moment) -> None:
        """See Triggers."""
        if self._offer is not None:
            self._starting.pushed(self._offer, result, now)
        if result.won:
            self._trouble.over("push", "runs of triggers can be made again")

    def failed(self, error: DstackError, now: Moment) -> None:
        """See Triggers."""
        self._starting.failed(error, now)
        self._trouble.tell("push", f"runs of triggers can't be made: {error}; trying again")

    def next_at(self, now: Moment) -> float | None:
        """See Triggers."""
        settle = self._settle_at if self._settle_at and self._settle_at > now.ticks else None
        moments = (None if self._busy else self._due(now), self._starting.next_at(now.ticks), settle)
        return min((moment for moment in moments if moment is not None), default=None)

    def _settled(self, paths: AbstractSet[str], world: World, now: Moment) -> tuple[Change, ...]:
        """That runs are there needn't be written at once: where pushes are rare, those that start jobs go first."""
        if not paths:
            self._settle_at = None
            return ()
        if self._settle_at is None:
            self._settle_at = now.ticks + SETTLE_INTERVALS * world.interval
        if now.ticks < self._settle_at:
            return ()
        self._offer = self._starting.settle(paths, now)
        return self._offer.changes if self._offer else ()

    def _offered(self, memory: Seen | None, world: World, seen: Observation, now: Moment) -> tuple[Change, ...]:
        """What the last look has found, if it has ended and still counts."""
        self._offer = None
        if self._busy:
            return ()
        self._judge_look(now)
        if self._found is not None and self._found.is_of(memory):
            self._offer = self._starting.offer(self._found, world, seen, now)
        else:
            self._news = True
        return self._offer.changes if self._offer else ()

    def _view(self, memory: Seen | None, settings: Settings, now: Moment) -> Look:
        look = Look(seen=memory, rules=settings.triggers, now=now.wall, last=self._found)
        if (bases := self.bases) is None:
            return look
        return replace(look, bases=lambda tips: bases.added(tips, memory, settings.forge))

    def _due(self, now: Moment) -> float:
        """When to look, in ticks."""
        due = self._looked + self._interval(now)
        if self._news and not self.watched:
            due = min(due, self._looked + max(self._least, LEAST_SECONDS))
        elif self._news:
            due = min(due, self._looked + self._least)
        return max(due, self._backoff.until)

    def _interval(self, now: Moment) -> float:
        """Seconds between the last look and the next, if there is no news."""
        found = self._found
        if found is None:
            return 0.0
        usual = self.poll if found.active else max(IDLE_SECONDS, self.poll)
        usual = math.inf if self.watched else usual  # every turn looks
        if found.next_at is None:
            return usual
        ahead = (found.next_at - now.wall).total_seconds()
        return min(usual, max(0.0, now.ticks - self._looked + ahead))

    def _begin(self, look: Look, now: Moment) -> None:
        self._busy, self._news = True, False
        self._looked = now.ticks
        self.looks += 1
        self.start(lambda: self._look(look))

    def _look(self, look: Look) -> None:
        """In the thread."""
        began = self.clock()
        try:
            self._code = self._code or self.open_code()
            self._found = find(self._code, look)
        except DstackError as error:
            self._error = error
        except Exception as error:
            LOG.exception("the code could not be looked at: a mistake of ours")
            self._error = error
        self._least = (self.clock() - began) * DUTY
        self._busy = False
        if self._error is not None or self._found is not look.last or self._news:
            self.told()

    def _judge_look(self, now: Moment) -> None:
        """How the last look went."""
        if self._error is not None:
            self._backoff = self._backoff.after_outage(now.ticks, self.jitter(), self._error, self.longest)
            self._trouble.tell("code", f"the code can't be looked at for triggers: {self._error}; trying again")
            self._error = None
        elif self._looked > self._backoff.until:
            self._backoff = Backoff()
            self._trouble.over("code", "the code can be looked at again")
        if self._found is not None and self._found.problem:
            self._trouble.tell("firing", f"triggers start nothing: {self._found.problem}")
        elif self._found is not None:
            self._trouble.over("firing", "triggers start runs again")
