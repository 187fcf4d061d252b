"""Signs of life through the stores: runners' read, the controller's own written."""

import logging
import platform
from collections.abc import Callable
from dataclasses import dataclass, field

from controller.turn import Pulses
from dstack.model import keys
from dstack.model.errors import DstackError
from dstack.model.pool import Heartbeat
from dstack.model.world import Moment
from dstack.store.heartbeats import ControllerHeartbeat, Known, read_runners, write_controller
from dstack.store.store import Store

LOG = logging.getLogger(__name__)

BEATS_PER_LEASE = 4


@dataclass(slots=True, kw_only=True)
class StorePulse:
    """Implements `controller.turn.Pulse`. `open_store` opens a store by URL and may raise DstackError.

    Stores stay open. `own` is the URL that this controller's heartbeat goes to. `pause`: why it decides nothing now.
    """

    controller: str
    own: str
    open_store: Callable[[str], Store]
    pause: Callable[[], str] = str
    _stores: dict[str, Store] = field(default_factory=dict)
    _known: dict[str, Known] = field(default_factory=dict)
    _beats: int = 0
    _next: float | None = None
    _problems: tuple[str, ...] = ()

    def heartbeats(self, urls: frozenset[str]) -> Pulses:
        """Of all runners that write to these stores; a store that can't be read hides its own runners only."""
        beats: dict[tuple[str, str], Heartbeat] = {}
        problems: list[str] = []
        away: set[str] = set()
        for url in sorted(urls):
            try:
                found = read_runners(self.opened(url), self._known.setdefault(url, {}))
            except DstackError as error:
                away.add(url)
                problems.append(f"heartbeats can't be read: {error}")
                continue
            beats.update({who: seen.heartbeat for who, seen in found.seen.items()})
            problems.extend(found.problems)
        self._report(tuple(problems))
        return Pulses(heartbeats=beats, away=frozenset(away))

    def beat(self, now: Moment, lease: float) -> None:
        """Every quarter of a lease."""
        if self._next is not None and now.ticks < self._next:
            return
        self._next = now.ticks + lease / BEATS_PER_LEASE
        self._beats += 1
        heartbeat = ControllerHeartbeat(
            controller=self.controller,
            host=platform.node(),
            beats=self._beats,
            lease=lease,
            pause=self.pause(),
            at=now.wall,
        )
        write_controller(self.opened(self.own), heartbeat)

    def end(self) -> None:
        """Take the controller's own sign of life away."""
        if self._beats:
            self.opened(self.own).delete(keys.controller_heartbeat(self.controller))

    def opened(self, url: str) -> Store:
        """The store at this URL, which stays open. Raises DstackError."""
        if url not in self._stores:
            self._stores[url] = self.open_store(url)
        return self._stores[url]

    def _report(self, problems: tuple[str, ...]) -> None:
        if problems != self._problems:
            for problem in problems:
                LOG.warning("%s", problem)
        self._problems = problems
