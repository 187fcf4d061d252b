"""Bytes done of a transfer, told to who watches: by several threads, but one at a time, and never too many."""

import threading
from collections.abc import Callable

from dstack.store.workers import Workers

# Bytes done, bytes in all. What it raises ends the transfer.
Progress = Callable[[int, int], None]


def silent(_done: int, _total: int) -> None:
    """Progress that nobody watches."""


class Tally:
    """How far a transfer of `total` bytes is."""

    def __init__(self, total: int, progress: Progress) -> None:
        """`total` in bytes."""
        self._total = total
        self._progress = progress
        self._workers: Workers | None = None
        self._done = 0
        self._lock = threading.Lock()

    def watch(self, workers: Workers) -> None:
        """From now on these do the work, and raise what ends it."""
        self._workers = workers

    def add(self, size: int) -> None:
        """So many bytes more are dealt with; 0 only asks whether to go on. Raises GaveUp where not.

        Who sends then knows of no error of its own, and leaves what has arrived for the next time.
        """
        if self._workers is not None:
            self._workers.check()
        with self._lock:
            self._done += size
            try:
                self._progress(self._done, self._total)
            except BaseException as error:
                if self._workers is not None:
                    raise self._workers.give_up(error) from error
                raise


class Meter:
    """One object's part of a tally: whatever is sent twice, it counts its size once."""

    def __init__(self, tally: Tally, size: int) -> None:
        """`size` in bytes."""
        self._tally = tally
        self._left = size
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        """So many bytes went through, perhaps again."""
        with self._lock:
            counted = max(0, min(size, self._left))
            self._left -= counted
        self._tally.add(counted)

    def finish(self) -> None:
        """It is there, whole."""
        self.add(self._left)
