"""Whether somebody follows the logs of a run: asked of the store seldom, and once for all its attempts here."""

import logging
import threading
from collections.abc import Callable
from weakref import WeakValueDictionary

from dstack.model.errors import DstackError
from dstack.store import watched
from dstack.store.store import Store

LOG = logging.getLogger(__name__)

LOOK_SECONDS = 3.0


class Audience:
    """One run's. Called with the time in ticks, by several threads; the store is asked by one of them."""

    def __init__(self, left: Callable[[], float], run: str) -> None:
        """`left` asks the store for how many seconds somebody still follows."""
        self._left, self._run = left, run
        self._lock = threading.Lock()
        self._again = self._until = float("-inf")
        self._told = False

    def __call__(self, now: float) -> bool:
        """Whether somebody follows. Where the store doesn't say, what it said last holds until it is stale."""
        if self._is_to_ask(now):
            try:
                self._until = now + self._left()
            except DstackError as error:
                if not self._told:
                    LOG.debug("whether somebody follows %s is not known: %s", self._run, error)
                self._told = True
        return now < self._until

    def _is_to_ask(self, now: float) -> bool:
        with self._lock:
            if now < self._again:
                return False
            self._again = now + LOOK_SECONDS
            return True


class Audiences:
    """Those of all runs with an attempt in hand; kept for as long as a log asks for them."""

    def __init__(self, open_store: Callable[[str], Store]) -> None:
        """`open_store` by URL."""
        self._open_store = open_store
        self._lock = threading.Lock()
        self._known: WeakValueDictionary[tuple[str, str], Audience] = WeakValueDictionary()

    def of(self, url: str, run: str) -> Audience:
        """The one of a run (a RunKey's text) whose store is at `url`."""
        with self._lock:
            found = self._known.get((url, run))
            if found is None:
                found = self._known[url, run] = Audience(lambda: watched.left(self._open_store(url), run), run)
            return found
