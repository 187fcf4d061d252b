"""A few threads for one transfer: what is waiting for them is bounded, and the first error stops all of them."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from dstack.model.errors import Unavailable

T = TypeVar("T")


class GaveUp(Unavailable):
    """Another thread failed, whose error tells why. What is half sent may be gone on with."""


class Workers:
    """Threads that end with the `with` block, which raises the first error of any of them."""

    def __init__(self, width: int) -> None:
        """`width`: how many threads."""
        self._pool = ThreadPoolExecutor(width, thread_name_prefix="transfer")
        self._room = threading.Semaphore(width + 2)
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    def start(self, work: Callable[[], T]) -> "Future[T]":
        """Have it done; waits while too much is waiting already. Raises GaveUp."""
        self._room.acquire()
        try:
            self.check()
            return self._pool.submit(self._run, work)
        except BaseException:
            self._room.release()
            raise

    def check(self) -> None:
        """Raises GaveUp where the transfer is to stop. For work that takes long."""
        if self._error is not None:
            msg = "another part of this transfer failed"
            raise GaveUp(msg)

    def give_up(self, error: BaseException) -> GaveUp:
        """Stop all for this error; what to raise instead of it here."""
        self._fail(error)
        return GaveUp("this transfer was ended")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._fail(error)
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        if self._error is not None and self._error is not error:
            raise self._error

    def _run(self, work: Callable[[], T]) -> T:
        try:
            self.check()
            return work()
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._room.release()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._error is None and not isinstance(error, GaveUp):
                self._error = error
