"""The runner's sign of life in the store. It has a thread and a store of its own: whatever else hangs, it goes on."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from dstack.model.errors import DstackError, Failed, Invalid
from dstack.model.pool import Capacity, Heartbeat, Phase, Transfer
from dstack.model.world import Moment
from dstack.store.heartbeats import write_runner
from dstack.store.store import Store

LOG = logging.getLogger(__name__)

FIRST_PAUSE = 0.25
AFTER_CHANGE = 1.0
AFTER_FAILURE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What a heartbeat tells. `store`: the URL to beat in; None: not yet known. `lease` in seconds."""

    free: Capacity
    store: str | None = None
    lease: float = 60.0
    attempts: dict[str, Phase] = field(default_factory=dict)
    assignment: str | None = None
    polls: int = 0
    retry_after: float | None = None
    pause: str = ""
    pauses: dict[str, str] = field(default_factory=dict)
    unlimited: tuple[str, ...] = ()
    # No news: they ride along with the beats that come anyway.
    transfers: dict[str, Transfer] = field(default_factory=dict)

    @property
    def news(self) -> tuple[object, ...]:
        """What the controller is to hear of soon."""
        return self.attempts, self.pause, self.pauses, self.unlimited


class Heart:
    """Beats: quickly at first, so that a controller sees it live; then every quarter of a lease, and after changes."""

    def __init__(
        self,
        name: tuple[str, str, str],
        vitals: Vitals,
        open_store: Callable[[str], Store],
        clock: Callable[[], Moment],
    ) -> None:
        """`name`: runner, instance, start."""
        self.vitals = vitals
        self.beating_in: str | None = None
        self.refusal: DstackError | None = None
        self.on_news: Callable[[], None] = _nobody
        self._name = name
        self._open_store = open_store
        self._clock = clock
        self._store: Store | None = None
        self.beats = 0
        self._pause = FIRST_PAUSE
        self._last = Vitals(free=vitals.free)
        self._beat_at: float | None = None
        self._not_before = 0.0
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat by itself."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more. A put that hangs isn't waited for."""
        self._stopped = True
        self._wake.set()

    def show(self, vitals: Vitals) -> None:
        """Tell this from now on: at once in another store, soon where attempts changed, else with the next beat."""
        before, self.vitals = self.vitals, vitals
        if (before.store, before.news) != (vitals.store, vitals.news):
            self._wake.set()

    def turn(self) -> float:
        """Beat if it is time; seconds until it is again."""
        now = self._clock()
        vitals = self.vitals
        if vitals.store is None:
            return AFTER_FAILURE
        due = self._due_at(vitals, now.ticks)
        if now.ticks < due:
            return due - now.ticks
        try:
            self._beat(vitals, vitals.store, now)
        except DstackError as error:
            self._not_before = now.ticks + AFTER_FAILURE
            self._trouble(error)
            return AFTER_FAILURE
        return self._due_at(vitals, now.ticks) - now.ticks

    def _due_at(self, vitals: Vitals, now: float) -> float:
        return max(self._wanted_at(vitals, now), self._not_before)

    def _wanted_at(self, vitals: Vitals, now: float) -> float:
        if self._beat_at is None or vitals.store != self.beating_in:
            return now
        changed = vitals.news != self._last.news
        return self._beat_at + (min(AFTER_CHANGE, self._pause) if changed else self._pause)

    def _beat(self, vitals: Vitals, url: str, now: Moment) -> None:
        if self._store is None or url != self.beating_in:
            self._store = self._open_store(url)
        runner, instance, start = self._name
        self.beats += 1
        write_runner(
            self._store,
            Heartbeat(
                runner=runner,
                instance=instance,
                start=start,
                beats=self.beats,
                polls=vitals.polls,
                assignment=vitals.assignment,
                attempts=vitals.attempts,
                free=vitals.free,
                retry_after=vitals.retry_after,
                pause=vitals.pause,
                pauses=vitals.pauses,
                unlimited=vitals.unlimited,
                transfers=vitals.transfers,
                at=now.wall,
            ),
        )
        fresh, self.beating_in, self.refusal = url != self.beating_in or self.refusal is not None, url, None
        self._pause = min(self._pause * 2 if self._beat_at is not None else FIRST_PAUSE, vitals.lease / 4)
        self._beat_at, self._last = now.ticks, vitals
        if fresh:
            self.on_news()

    def _trouble(self, error: DstackError) -> None:
        LOG.log(logging.WARNING if self.refusal is None else logging.DEBUG, "no heartbeat could be written: %s", error)
        self.refusal = error
        if isinstance(error, Failed | Invalid):
            self.on_news()

    def _run(self) -> None:
        while not self._stopped:
            self._wake.clear()
            try:
                pause = self.turn()
            except Exception:
                LOG.exception("a heartbeat failed; it is tried again")
                pause = AFTER_FAILURE
            self._wake.wait(pause)


def _nobody() -> None:
    """Nobody wants to know."""
