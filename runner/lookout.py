"""What a runner looks at on its machine now and then: room on its disk, and what nobody holds any more."""

import logging
import threading
from collections.abc import Callable, Mapping

from runner.disk import Guard, Space
from runner.held import Held
from runner.works import Works

LOG = logging.getLogger(__name__)

SWEEP_SECONDS = 300.0


class Lookout:
    """`tidied`: what earlier starts left behind is about to be removed, or has been. Times in ticks.

    `pauses`: why executors begin nothing, by name, when it was last looked.
    """

    def __init__(self, works: Works, space: Callable[[], Space | None], *, keep: int | None) -> None:
        """`space` looks at the disk; `keep`: bytes to keep free there, see `runner.disk`."""
        self.tidied = threading.Event()
        self._works, self._space = works, space
        self._guard = Guard(keep=keep)
        self._sweep_at = 0.0
        self.pauses = works.pauses
        works.leftovers.find_gpus()

    @property
    def pause(self) -> str:
        """Why nothing is to be begun; empty while there is room, and something to begin it with."""
        return self._guard.pause or self._works.idle

    def look(self, held: Mapping[str, Held], now: float) -> None:
        """Look at what it is time for."""
        if now >= self._guard.look_at:
            self._look_at_disk(held, now)
        before, self.pauses = self.pauses, self._works.pauses
        if before.keys() - self.pauses.keys():
            self._works.leftovers.find_gpus()
        if self.tidied.is_set() and now >= self._sweep_at:
            self._sweep_at = now + SWEEP_SECONDS
            self._works.leftovers.remove_orphans(held)

    def tidy(self, held: Mapping[str, Held], now: float) -> None:
        """Once, when all that is assigned was read: remove what nobody holds."""
        if not self.tidied.is_set():
            self._works.leftovers.remove_all(held)
            self.tidied.set()
            self._sweep_at = now + SWEEP_SECONDS

    def _look_at_disk(self, held: Mapping[str, Held], now: float) -> None:
        before, self._guard = self._guard, self._guard.seen(self._space(), now)
        if bool(before.pause) != bool(self._guard.pause):
            LOG.warning("%s", f"no job is begun: {self._guard.pause}" if self._guard.pause else "jobs are begun again")
        if self._guard.sweep:
            self._works.leftovers.free_space(held)
