"""Which branch each pull request goes into, asked of the forge in a thread of its own: no look waits for it."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from controller import naming
from controller.trouble import Trouble
from dstack.model.errors import DstackError
from dstack.model.firing import Tips
from dstack.model.forge import ForgeSettings
from dstack.model.seen import Seen, path_of, pull_of

LOG = logging.getLogger(__name__)

# After so many seconds without an answer a pull request counts as one into the default branch.
PATIENCE = 20.0
AGAIN = 5.0

_Head = tuple[int, str]


def _in_thread(work: Callable[[], None]) -> None:
    naming.begin(work, name="pull requests")


@dataclass(slots=True, kw_only=True)
class PullBases:
    """For one thread. `ask` asks the forge for all open ones, and may raise DstackError; `told` is called with news.

    The forge is asked for heads that are new or have moved. `start` runs what it is given in a thread.
    """

    ask: Callable[[ForgeSettings], Mapping[int, str]]
    told: Callable[[], None]
    clock: Callable[[], float] = time.monotonic
    start: Callable[[Callable[[], None]], None] = _in_thread
    _known: Mapping[int, str] = field(default_factory=dict)
    _since: dict[_Head, float] = field(default_factory=dict)
    _answered: frozenset[_Head] = frozenset()
    _busy: bool = False
    _again: float = float("-inf")
    _trouble: Trouble = field(default_factory=Trouble)

    def added(self, tips: Tips, seen: Seen | None, settings: ForgeSettings | None) -> Tips:
        """The tips with what is known of their pull requests by now. Returns at once."""
        if settings is None or seen is None:
            return tips
        now = self.clock()
        heads = frozenset(_moved(tips, seen))
        self._answered &= heads
        waiting = heads - self._answered
        self._since = {head: self._since.get(head, now) for head in waiting}
        if waiting and not self._busy and now >= self._again:
            self._busy = True
            self.start(lambda: self._ask(settings, waiting))
        awaited = frozenset(
            number for number, oid in waiting - self._answered if now < self._since[number, oid] + PATIENCE
        )
        return replace(tips, bases=self._known, awaited=awaited)

    def _ask(self, settings: ForgeSettings, heads: frozenset[_Head]) -> None:
        """In the thread. What is known is a new value each time, so that the other one sees the old or the new."""
        try:
            self._known = dict(self.ask(settings))
            self._answered |= heads
            self._trouble.over("forge", "the forge says again where pull requests go")
        except Exception as error:
            if not isinstance(error, DstackError):
                LOG.exception("a forge could not be asked for pull requests: a mistake of ours")
            later = f"after {PATIENCE:.0f} s they count as for the default branch, or where they went before"
            self._trouble.tell("forge", f"the forge doesn't say where pull requests go: {error}; {later}")
            self._again = self.clock() + AGAIN
        self._busy = False
        self.told()


def _moved(tips: Tips, seen: Seen) -> Iterator[_Head]:
    """Of the pull requests those that are to be evaluated."""
    for ref, oid in tips.refs.items():
        path = path_of(ref)
        number = pull_of(path) if path else None
        if path and number is not None and seen.marks.get(path) != oid:
            yield number, oid
