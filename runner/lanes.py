"""Where slow work is done: each lane has its own threads, so that what hangs in one holds up no other."""

import threading
from collections.abc import Callable
from enum import StrEnum
from queue import SimpleQueue
from typing import Protocol


class Lane(StrEnum):
    """A kind of slow work."""

    REMOTE = "remote"
    PREPARE = "prepare"
    ALONG = "along"
    FINISH = "finish"
    REMOVE = "remove"


class Lanes(Protocol):
    """Takes work that raises nothing."""

    def run(self, lane: Lane, work: Callable[[], None]) -> None:
        """Have it done, at once or soon."""
        ...

    def close(self) -> None:
        """Begin no more. What is under way isn't waited for."""
        ...


WIDTHS = {Lane.REMOTE: 1, Lane.PREPARE: 4, Lane.ALONG: 4, Lane.FINISH: 8, Lane.REMOVE: 2}


class Threads:
    """Lanes of real threads. They are daemons: a put that hangs doesn't keep the process from ending."""

    def __init__(self) -> None:
        """Threads start when they are needed."""
        self._pools = {lane: _Pool(lane, width) for lane, width in WIDTHS.items()}

    def run(self, lane: Lane, work: Callable[[], None]) -> None:
        """See Lanes."""
        self._pools[lane].put(work)

    def close(self) -> None:
        """See Lanes."""
        for pool in self._pools.values():
            pool.close()


class _Pool:
    """Up to `width` threads that take work from one queue."""

    def __init__(self, name: str, width: int) -> None:
        self._name = name
        self._width = width
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._busy = 0

    def put(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._busy += 1
            if self._busy > self._threads and self._threads < self._width:
                self._threads += 1
                threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()
        self._queue.put(work)

    def close(self) -> None:
        for _ in range(self._threads):
            self._queue.put(None)

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            try:
                work()
            finally:
                with self._lock:
                    self._busy -= 1


class Inline:
    """Does everything at once, in the thread of who asks: for stepping by hand."""

    def run(self, _lane: Lane, work: Callable[[], None]) -> None:
        """See Lanes."""
        work()

    def close(self) -> None:
        """See Lanes."""
