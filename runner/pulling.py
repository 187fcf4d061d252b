"""Pulls of images: each once, however many jobs wait for it; tried again where the registry may come back."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from dstack.model.errors import DstackError, Unavailable
from dstack.model.job import Reason
from dstack.store import tally
from runner.engine import Engine
from runner.engine_values import Refused
from runner.executor import StartFailed
from runner.pull_progress import Progress
from runner.pull_refusals import is_passing, why

PAUSES = (1.0, 4.0, 15.0)
STALLED = 600.0
LOOK = 0.2
TELL = 10.0

logger = logging.getLogger(__name__)


class Pull:
    """One pull under way, in a thread of its own, so that whoever waits for it may leave."""

    def __init__(self, engine: Engine, name: str, pauses: Sequence[float]) -> None:
        """Begin."""
        self.progress: Progress | str = Progress()
        self.error: DstackError | None = None
        self.waiting = 0
        self.moved = time.monotonic()
        self.ended = threading.Event()
        self._engine, self._name, self._pauses = engine, name, pauses
        self._unwanted = threading.Event()
        threading.Thread(target=self._run, name=f"pull {name}", daemon=True).start()

    def stop(self) -> None:
        """Nobody waits for it any more."""
        self._unwanted.set()

    def _run(self) -> None:
        try:
            self._pull()
        except DstackError as error:
            self.error = error
        except Exception as error:
            logger.exception("pulling %s failed", self._name)
            self.error = StartFailed(Reason.INTERNAL, f"the image {self._name} can't be pulled: {error}")
        finally:
            self.ended.set()

    def _pull(self) -> None:
        for pause in (*self._pauses, None):
            try:
                self._engine.pull(self._name, self._take, self._unwanted)
            except Refused as refused:
                if pause is None or not is_passing(refused.words):
                    raise why(self._name, refused) from refused
                self._show(f"{refused.words}; trying again in {pause:g} s")
                if self._unwanted.wait(pause):
                    return
            else:
                return

    def _take(self, line: dict[str, object]) -> None:
        """A line of the engine's: any of them is a sign of life."""
        before = self.progress if isinstance(self.progress, Progress) else Progress()
        self._show(before.with_line(line))

    def _show(self, progress: Progress | str) -> None:
        self.progress, self.moved = progress, time.monotonic()


class Pulls:
    """The pulls of one engine, by image name. For several threads."""

    def __init__(self, engine: Engine, pauses: Sequence[float] = PAUSES) -> None:
        """`pauses` in seconds between tries."""
        self._engine, self._pauses = engine, pauses
        self._lock = threading.Lock()
        self._under_way: dict[str, Pull] = {}

    def pull(
        self, name: str, tell: Callable[[str], None], check: Callable[[], None], watch: tally.Progress = tally.silent
    ) -> None:
        """Wait until it is here. `tell` gets a line now and then; `check` raises where waiting is to end.

        `watch` is told the bytes that have come, and those known so far.
        Raises StartFailed, Unavailable, and what `check` raises.
        """
        one = self._joined(name)
        try:
            _wait(one, name, tell, lambda: _looked(one, check, watch))
        finally:
            self._left(name, one)
        if isinstance(one.error, StartFailed):
            raise StartFailed(one.error.reason, str(one.error))
        if one.error is not None:
            raise Unavailable(str(one.error))

    def _joined(self, name: str) -> Pull:
        with self._lock:
            one = self._under_way.get(name)
            if one is None or one.ended.is_set():
                one = self._under_way[name] = Pull(self._engine, name, self._pauses)
            one.waiting += 1
            return one

    def _left(self, name: str, one: Pull) -> None:
        with self._lock:
            one.waiting -= 1
            if not one.waiting:
                one.stop()
                if self._under_way.get(name) is one:
                    del self._under_way[name]


def _looked(one: Pull, check: Callable[[], None], watch: tally.Progress) -> None:
    check()
    progress = one.progress
    if isinstance(progress, Progress):
        watch(progress.come, progress.size)


def _wait(one: Pull, name: str, tell: Callable[[str], None], check: Callable[[], None]) -> None:
    tell(f"pulling the image {name}")
    told, said = str(one.progress), time.monotonic()
    while not one.ended.wait(LOOK):
        check()
        now, text = time.monotonic(), str(one.progress)
        soon = isinstance(one.progress, str)
        if text != told and (soon or now - said >= TELL):
            tell(f"pulling: {text}")
            told, said = text, now
        if now - one.moved > STALLED:
            minutes = STALLED / 60
            msg = f"the pull of the image {name} has made no progress for {minutes:.0f} minutes: is the registry well?"
            raise StartFailed(Reason.IMAGE_PULL, msg)
