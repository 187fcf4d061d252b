"""The running commands: the process started, its two pipes, and everything that descends from it."""

import os
import select
import time

from runner.shim import kernel
from runner.shim.order import Order
from runner.shim.output import STDERR, STDOUT, Output

PIECE = 65536
PIPE_CAPACITY = 1024 * 1024
UNKILLABLE = 30.0


class Commands:
    """Reads the pipes into the output, and reaps: orphans fall to the shim, so no process gets away from it."""

    def __init__(self, order: Order, output: Output) -> None:
        """Start them. Raises OSError."""
        self._grace, self._output = order.grace, output
        self._news = kernel.become_reaper()
        self._streams: dict[int, int] = {}
        self._poll = select.poll()
        self._poll.register(self._news, select.POLLIN)
        writers = [self._pipe(STDOUT), self._pipe(STDERR)]
        self._status: int | None = None
        self._alone = False
        self._pid = spawn(order, *writers)
        for fd in writers:
            os.close(fd)

    def wait(self) -> int:
        """Copy output until the commands have ended and nothing of them runs. Returns the wait status."""
        while self._status is None:
            self._turn(None)
        while not self._alone and (left := self._grace_left()) > 0:
            self._turn(left)
        self.kill_rest()
        self._drain()
        return self._status

    def kill_rest(self) -> None:
        """Kill what the commands left behind, as a container does when its first process ends."""
        deadline, pause = time.monotonic() + UNKILLABLE, 0.002
        while not self._alone and time.monotonic() < deadline:
            for pid in kernel.descendants(os.getpid()):
                kernel.kill(pid)
            self._turn(pause)
            self._reap()
            pause = min(pause * 2, 0.5)

    def _pipe(self, stream: int) -> int:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        self._streams[reader] = stream
        self._poll.register(reader, select.POLLIN)
        return writer

    def _turn(self, seconds: float | None) -> None:
        for fd, _ in self._poll.poll(None if seconds is None else seconds * 1000):
            if fd == self._news:
                os.read(fd, PIECE)
                self._reap()
            elif not self._copy(fd):
                self._poll.unregister(fd)
                os.close(fd)
                del self._streams[fd]

    def _copy(self, fd: int) -> bool:
        data = os.read(fd, PIECE)
        if data:
            self._output.write(self._streams[fd], data)
        return bool(data)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._alone = True
                return
            if pid == 0:
                return
            if pid == self._pid:
                self._status = status

    def _grace_left(self) -> float:
        """Seconds that what is left may still run: none unless the runner has asked it to stop."""
        try:
            return os.stat("stopping").st_mtime + self._grace - time.time()
        except FileNotFoundError:
            return 0.0

    def _drain(self) -> None:
        """A stranger may hold a pipe open and write on: take no more than it can have held."""
        for fd in self._streams:
            for _ in range(PIPE_CAPACITY // PIECE):
                try:
                    if not self._copy(fd):
                        break
                except BlockingIOError:
                    break


def spawn(order: Order, out: int, err: int) -> int:
    """Start the commands in a session of their own, with default signals and nothing on stdin. Its process id."""
    actions = (
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, out, 1),
        (os.POSIX_SPAWN_DUP2, err, 2),
    )
    here = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
    os.chdir(order.folder)
    score = kernel.prefer_for_oom("500")
    try:
        return os.posix_spawn(
            order.argv[0],
            order.argv,
            order.environment,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=kernel.RESETTABLE,
        )
    finally:
        kernel.prefer_for_oom(score)
        os.fchdir(here)
        os.close(here)
