"""Saves of artifacts while a job runs: at its interval, and once when it is asked to end. One at a time for each.

A failure is a warning, and never the end of the job. Before the last save, at the end of the job, `end` sees to it that
none of these is under way.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dstack.model.errors import DstackError
from dstack.model.pool import Phase
from runner.cancelling import Cancel, Cancelled
from runner.held import Cause, Held

LOG = logging.getLogger(__name__)

# After a failure it is tried again so soon, in seconds, if its interval is longer.
AGAIN_SECONDS = 60.0
_LOOK_SECONDS = 0.1


def interval_of(held: Held) -> float:
    """Seconds between two saves: what is saved while a job runs is one set, saved as often as any of it is to be."""
    return min(held.job.saves.values(), default=0.0)


@dataclass(slots=True, kw_only=True)
class _Saves:
    """An attempt's. `due` in ticks; `asked`: one was begun when the job was asked to end."""

    due: float
    asked: bool = False
    cancel: Cancel = field(default_factory=Cancel)
    begun: bool = False
    done: threading.Event | None = None
    failures: int = 0
    trouble: str = ""

    @property
    def busy(self) -> bool:
        return self.done is not None and not self.done.is_set()


class Along:
    """The saves of all attempts that run here. `look` is for one thread, `end` and `forget` for any."""

    def __init__(
        self,
        run: Callable[[Callable[[], None]], None],
        save: Callable[[Held, Cancel], None],
        clock: Callable[[], float],
    ) -> None:
        """`run` has work done elsewhere; `save` may raise anything; `clock` gives ticks."""
        self._run, self._save, self._clock = run, save, clock
        self._lock = threading.Lock()
        self._known: dict[str, _Saves] = {}

    @property
    def next_at(self) -> float | None:
        """When the next one is due, in ticks."""
        with self._lock:
            return min((one.due for one in self._known.values() if not one.busy and not one.asked), default=None)

    def look(self, held: Mapping[str, Held], now: float) -> None:
        """Begin what is due."""
        running = {key: one for key, one in held.items() if _may_be_saved(one)}
        for key, one in running.items():
            with self._lock:
                saves = self._known.setdefault(key, _Saves(due=now + interval_of(one)))
                leaves = one.cause is not None
                if saves.busy or (now < saves.due if not leaves else saves.asked):
                    continue
                saves.asked, saves.begun, saves.done = leaves, False, threading.Event()
            self._begin(one, saves, saves.done)
        with self._lock:
            for key in self._known.keys() - running.keys():
                self._known[key].due = float("inf")

    def end(self, key: str, cancel: Cancel) -> str:
        """Have none under way, and none begin; what became of those that failed. Raises Cancelled."""
        with self._lock:
            saves = self._known.get(key)
            if saves is None:
                return ""
            saves.cancel.ask()
            done = saves.done if saves.begun else None
        while done is not None and not done.wait(_LOOK_SECONDS):
            cancel.check()
        if not saves.failures:
            return ""
        times = "a save" if saves.failures == 1 else f"{saves.failures} saves"
        return f"{times} of artifacts while it ran failed, the last time: {saves.trouble}"

    def forget(self, key: str) -> None:
        """It is gone from this machine."""
        with self._lock:
            if (saves := self._known.pop(key, None)) is not None:
                saves.cancel.ask()

    def _begin(self, held: Held, saves: _Saves, done: threading.Event) -> None:
        def work() -> None:
            with self._lock:
                if saves.cancel.asked:
                    done.set()
                    return
                saves.begun = True
            began = self._clock()
            failed = self._try(held, saves)
            with self._lock:
                now, interval = self._clock(), interval_of(held)
                pause = min(interval, AGAIN_SECONDS) if failed else interval
                # Never more than half of the time.
                saves.due = max(began + pause, now + (now - began))
                done.set()

        self._run(work)

    def _try(self, held: Held, saves: _Saves) -> bool:
        """Whether it failed."""
        try:
            self._save(held, saves.cancel)
        except Cancelled:
            return False
        except (DstackError, OSError) as error:
            LOG.warning("artifacts of %s could not be saved while it runs: %s", held.key, error)
            trouble = str(error)
        except Exception as error:
            LOG.exception("saving artifacts of %s failed by an error of dstack's own", held.key)
            trouble = f"an error of dstack's own: {type(error).__name__}: {error}"
        else:
            return False
        saves.failures, saves.trouble = saves.failures + 1, trouble
        return True


def _may_be_saved(held: Held) -> bool:
    running = held.phase is Phase.RUNNING and not held.gone and held.exit is None
    return running and bool(held.job.saves) and held.cause is not Cause.ABORT
