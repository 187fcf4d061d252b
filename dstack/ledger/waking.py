"""A loop that runs one step at a time, whenever something wakes it: a changed file of a local remote, a timer, a poke.

Wake-ups carry no news: the step reads the truth afresh. So a lost one costs a poll's interval, and no more.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from apscheduler.executors.debug import DebugExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers import SchedulerNotRunningError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger
from watchfiles import watch

LOG = logging.getLogger(__name__)

# The defaults (1600 and 50) cost 100 ms a wake-up.
WATCH_DEBOUNCE_MS = 50
WATCH_STEP_MS = 5
CHECK_STOP_MS = 500
FAILED_STEP_SECONDS = 1.0


def new_timers() -> BackgroundScheduler:
    """A scheduler for the timers of one loop or of many. A timer only wakes, so its own thread is all it needs."""
    return BackgroundScheduler(timezone=UTC, executors={"default": DebugExecutor()})


class Loop:
    """Calls `step`, which answers in how many seconds it wants to be called again if nothing happens."""

    def __init__(
        self,
        step: Callable[[], float | None],
        *,
        name: str,
        poll: float,
        watched: Path | None,
        timers: BackgroundScheduler | None = None,
    ) -> None:
        """`poll`: seconds between polls, whatever else happens. `watched`: the git folder of a local remote.

        `timers`: a scheduler that runs, and is shared with others; otherwise the loop has one of its own.
        """
        self._step = step
        self._name = name
        self._poll = poll
        self._watched = watched
        self._awake = threading.Event()
        self._stop = threading.Event()
        self._own = timers is None
        self._scheduler = timers or new_timers()
        self._next = f"next-{id(self):x}"

    def wake(self) -> None:
        """Have the step called soon. From any thread."""
        self._awake.set()

    def stop(self) -> None:
        """End `run` after the step at hand. From any thread, but not from a signal handler: it takes locks."""
        self._stop.set()
        self._awake.set()

    def run(self) -> None:
        """Step until stopped. A step that fails is logged and tried again: nothing read from outside ends a daemon."""
        watcher = threading.Thread(target=self._watch, name=f"{self._name}-watch", daemon=True)
        if self._watched is not None:
            watcher.start()
        trigger = IntervalTrigger(seconds=self._poll, jitter=self._poll / 5, timezone=UTC)
        poll = self._scheduler.add_job(self.wake, trigger, coalesce=True, misfire_grace_time=None)
        try:
            if self._own:
                self._scheduler.start()
            while not self._stop.is_set():
                self._awake.clear()
                self._schedule(self._guarded_step())
                self._awake.wait()
        finally:
            self._end(poll.id)
            if self._watched is not None:
                watcher.join()

    def _end(self, *timers: str) -> None:
        if self._own:
            with suppress(SchedulerNotRunningError):
                self._scheduler.shutdown(wait=False)
            return
        for timer in (*timers, self._next):
            with suppress(JobLookupError):
                self._scheduler.remove_job(timer)

    def _guarded_step(self) -> float | None:
        try:
            return self._step()
        except Exception:
            LOG.exception("a turn of the %s failed; it is tried again", self._name)
            return FAILED_STEP_SECONDS

    def _schedule(self, delay: float | None) -> None:
        """Keep the one timer at the moment the step asked for."""
        if delay is None:
            return
        if delay <= 0:
            self._awake.set()
            return
        at = datetime.now(UTC) + timedelta(seconds=delay)
        self._scheduler.add_job(
            self.wake, "date", run_date=at, id=self._next, replace_existing=True, misfire_grace_time=None
        )

    def _watch(self) -> None:
        """For as long as the loop runs, also over the time when the folder isn't there, or is another one."""
        while self._watched is not None and not self._stop.is_set():
            refs = self._watched / "refs"
            mark = _mark(refs)
            if mark is None:
                self._stop.wait(CHECK_STOP_MS / 1000)
                continue
            try:
                self._watch_one(refs, mark)
            except (OSError, RuntimeError) as error:
                LOG.log(
                    logging.DEBUG if _mark(refs) != mark else logging.WARNING, "watching %s failed: %s", refs, error
                )
                self._stop.wait(CHECK_STOP_MS / 1000)
            self.wake()

    def _watch_one(self, refs: Path, mark: tuple[int, int]) -> None:
        """Until it is another folder, or gone."""
        changes = watch(
            refs,
            watch_filter=None,
            debounce=WATCH_DEBOUNCE_MS,
            step=WATCH_STEP_MS,
            rust_timeout=CHECK_STOP_MS,
            yield_on_timeout=True,
            stop_event=self._stop,
            raise_interrupt=False,
        )
        for change in changes:
            if change:
                self.wake()
            if _mark(refs) != mark:
                return


def _mark(path: Path) -> tuple[int, int] | None:
    """What tells a folder from another one of its name."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino)
