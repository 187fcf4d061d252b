"""Reports runs to a forge beside the turns, in a thread of its own: whatever a forge does, no turn waits for it."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from controller.naming import begin
from dstack.model.settings import Settings
from dstack.model.world import Moment, World

LOG = logging.getLogger(__name__)

# Between two looks: turns may come faster than anybody reads a forge's page.
LEAST_SECONDS = 1.0
FAILED_SECONDS = 60.0


class Turn(Protocol):
    """What is done with a picture of runs: see `ReportTurn`."""

    def step(self, world: World, settings: Settings, now: Moment) -> float | None:
        """Answers in how many seconds to come again; None: when there is news."""
        ...

    def close(self) -> None:
        """Let go of what is held."""
        ...


class Reporter(Protocol):
    """What tells others how runs stand."""

    def offer(self, world: World, settings: Settings) -> None:
        """The latest picture of runs; returns at once. Only the newest one counts."""
        ...

    def stop(self) -> None:
        """Tell nothing more; returns at once."""
        ...


class NoReporter:
    """Nobody is told."""

    def offer(self, world: World, settings: Settings) -> None:
        """See Reporter."""

    def stop(self) -> None:
        """See Reporter."""


@dataclass(slots=True, kw_only=True)
class Reporting:
    """Implements Reporter: a mailbox of one letter, and a thread that reads it, begun when there is a forge to tell.

    `make` gives what is done with a letter; it is called once, in that thread.
    """

    make: Callable[[], Turn]
    least: float = LEAST_SECONDS
    clock: Callable[[], Moment] = lambda: Moment(wall=datetime.now(UTC), ticks=time.monotonic())
    _letter: tuple[World, Settings] | None = None
    _news: threading.Event = field(default_factory=threading.Event)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def offer(self, world: World, settings: Settings) -> None:
        """See Reporter."""
        if self._thread is None and settings.forge is None:
            return
        self._letter = (world, settings)
        self._news.set()
        if self._thread is None and not self._stopped.is_set():
            self._thread = begin(self._work, name="reports")

    def stop(self) -> None:
        """See Reporter."""
        self._stopped.set()
        self._news.set()

    def _work(self) -> None:
        turn: Turn | None = None
        wait: float | None = 0.0
        while not self._stopped.is_set():
            self._news.wait(wait)
            self._news.clear()
            letter = self._letter
            if letter is None or self._stopped.is_set():
                continue
            try:
                turn = turn or self.make()
                wait = turn.step(*letter, self.clock())
            except Exception:
                LOG.exception("reporting to the forge failed; it is tried again")
                wait = FAILED_SECONDS
            self._stopped.wait(self.least)
        if turn:
            turn.close()
