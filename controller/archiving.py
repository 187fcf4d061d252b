"""Archives finished runs beside the turns, in a thread of its own: a push that takes long holds up no decision."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from controller import naming
from controller.trouble import Trouble
from dstack.ledger.archive import Archive
from dstack.model import archive
from dstack.model.archive import ArchivedRun
from dstack.model.errors import DstackError, Unavailable
from dstack.model.observation import Observation, Outcome
from dstack.model.refs import RunKey
from dstack.model.retention import Retention
from dstack.model.reuse import Answer, Hint
from dstack.model.world import Moment, World

LOG = logging.getLogger(__name__)

# So often it is looked whether runs have to leave; after a full push the next one follows sooner.
LOOK_SECONDS = 60.0
NEXT_SECONDS = 5.0
MOST_PAUSE = 3600.0


class Archiver(Protocol):
    """What takes finished runs out of the way."""

    def turn(self, world: World, seen: Observation, retention: Retention, now: Moment) -> bool:
        """Begin to archive what has to leave, if it is time to. Whether this takes a push."""
        ...


class NoArchive:
    """Every run stays."""

    def turn(self, world: World, seen: Observation, retention: Retention, now: Moment) -> bool:  # noqa: ARG002
        """See Archiver."""
        return False


def _in_thread(work: Callable[[], None]) -> None:
    naming.begin(work, name="archive")


@dataclass(slots=True, kw_only=True)
class Archiving:
    """Implements Archiver, and tells what jobs of archived runs answer. `start` runs what it is given in a thread.

    `jitter` gives a fresh number from 0 to 1; `told` is called when refs have left.
    """

    open_archive: Callable[[], Archive]
    jitter: Callable[[], float]
    told: Callable[[], None]
    every: float = LOOK_SECONDS
    start: Callable[[Callable[[], None]], None] = _in_thread
    _archive: Archive | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _busy: bool = False
    _full: bool = False
    _failures: int = 0
    _error: DstackError | None = None
    _next: float | None = None
    _looked: bool = False
    _trouble: Trouble = field(default_factory=Trouble)

    def turn(self, world: World, seen: Observation, retention: Retention, now: Moment) -> bool:
        """See Archiver. Nothing happens while the thread is busy, nor before the first `every` is over, but a look."""
        if self._busy:
            return False
        if not self._looked:
            self._looked = True
            self._begin(self._look)
            return False
        if self._next is None:
            self._next = now.ticks + self._wait()
        if now.ticks < self._next:
            return False
        self._next = None
        runs = archive.leaving(world, seen, retention, now.wall)
        self._full = len(runs) == archive.MOST_RUNS
        if runs:
            self._begin(lambda: self._add(runs))
        return bool(runs)

    def answer(self, key: str, hint: Hint) -> Answer | None:
        """What a job of an archived run answers to this key; None where it doesn't, or it can't be told at once."""
        if self._archive is None or not self._lock.acquire(blocking=False):
            return None
        try:
            run = self._archive.find(RunKey.from_text(hint.run))
        except DstackError:
            return None
        finally:
            self._lock.release()
        return archive.answer(run, hint.job) if run and run.keys.get(hint.job) == key else None

    def _wait(self) -> float:
        seconds = min(self.every, NEXT_SECONDS) if self._full and not self._failures else self.every
        seconds = min(MOST_PAUSE, seconds * 2.0 ** min(self._failures, 10)) * (0.75 + self.jitter() / 2)
        asked = self._error.retry_after if isinstance(self._error, Unavailable) else None
        return max(seconds, asked or 0.0)

    def _begin(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                with self._lock:
                    self._archive = self._archive or self.open_archive()
                    work()
            except DstackError as error:
                self._failed(error)
            except Exception:
                LOG.exception("archiving failed")
                self._failures += 1
            finally:
                self._busy = False

        self._busy = True
        self.start(guarded)

    def _look(self) -> None:
        if self._archive:
            self._archive.look()

    def _add(self, runs: Sequence[ArchivedRun]) -> None:
        if self._archive is None:
            return
        pushed = self._archive.add(runs)
        if pushed.won:
            self._failures, self._error = 0, None
            self._trouble.over("archive", "runs can be archived again")
            names = runs[0].key.name if len(runs) == 1 else f"{len(runs)} runs"
            LOG.info("archived %s", names, extra={"runs": [str(run.key) for run in runs]})
            self.told()
            self._archive.look()
        elif Outcome.LOST not in pushed.outcomes.values():
            reasons = "; ".join(sorted(set(pushed.reasons.values()))) or "no reason given"
            self._failures += 1
            self._trouble.tell("archive", f"the state remote refuses to have runs archived: {reasons}")

    def _failed(self, error: DstackError) -> None:
        self._failures += 1
        self._error = error
        self._trouble.tell("archive", f"runs can't be archived: {error}; trying again later")
