"""Tells when processes end, whoever their parent is: one thread that sleeps on their pidfds (pidfd_open(2))."""

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress

Ended = Callable[[], None]


class Watch:
    """Calls back once per process, from its own thread, which is started with the first one."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._poll = select.epoll()
        self._close = os.eventfd(0)
        self._poll.register(self._close, select.EPOLLIN)
        self._ended: dict[int, Ended] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, pidfd: int, ended: Ended) -> None:
        """Call `ended` when the process has ended. The descriptor stays the caller's, open until then."""
        with self._lock:
            self._ended[pidfd] = ended
            self._poll.register(pidfd, select.EPOLLIN)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="processes", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop; nothing is called any more after this."""
        os.eventfd_write(self._close, 1)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._poll.close()
        os.close(self._close)

    def _run(self) -> None:
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._close:
                    return
                self._tell(fd)

    def _tell(self, fd: int) -> None:
        with self._lock:
            ended = self._ended.pop(fd, None)
            with suppress(OSError):
                self._poll.unregister(fd)
        if ended is not None:
            ended()
