"""Processes of this machine, found in /proc and signalled by pidfd, so that a recycled id never hits a stranger."""

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from runner.shim import kernel

PROC = Path("/proc")
PAUSE = 0.002


@contextmanager
def held(pid: int) -> Iterator[int | None]:
    """A pidfd of the process for the length of the block; None where there is no such process."""
    fd = open_process(pid)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def open_process(pid: int, *, started: int | None = None) -> int | None:
    """A pidfd of the process; None where there is none, or it isn't the one that `started` then (clock ticks)."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    # Held by its descriptor the id can't be recycled unseen: a start time read now is that of this process.
    if started is not None and kernel.started(str(pid)) != started:
        os.close(fd)
        return None
    return fd


def send(pidfd: int, number: signal.Signals) -> None:
    """Signal a process that may have ended."""
    with suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(pidfd, number)


def signal_below(root: int, number: signal.Signals) -> int:
    """Signal every descendant of `root` that is alive. Returns how many there were."""
    with ExitStack() as stack:
        found = {pid: stack.enter_context(held(pid)) for pid in kernel.descendants(root) if is_alive(pid)}
        # Looked for again after the descriptors were opened: what is below `root` both times is no stranger.
        still = set(kernel.descendants(root))
        below = {pid: fd for pid, fd in found.items() if fd is not None and pid in still}
        for fd in below.values():
            send(fd, number)
    return len(below)


def kill_below(root: int, seconds: float) -> None:
    """Kill every descendant of `root`, again until none is left or the time is up."""
    deadline = time.monotonic() + seconds
    while signal_below(root, signal.SIGKILL) and time.monotonic() < deadline:
        time.sleep(PAUSE)


def is_alive(pid: int) -> bool:
    """Whether it runs: a zombie doesn't."""
    fields = kernel.stat(str(pid))
    return bool(fields) and fields[0] not in (b"Z", b"X")


def kill_marked(mark: bytes, seconds: float) -> None:
    """Kill every process whose environment began with the variable `mark` (`NAME=VALUE`), again until none is left."""
    deadline = time.monotonic() + seconds
    while (found := [pid for pid in all_processes() if mark in environment(pid)]) and time.monotonic() < deadline:
        for pid in found:
            with held(pid) as fd:
                if fd is not None and mark in environment(pid):
                    send(fd, signal.SIGKILL)
        time.sleep(PAUSE)


def all_processes() -> list[int]:
    """The ids of all processes."""
    return [int(path.name) for path in PROC.iterdir() if path.name.isdigit()]


def environment(pid: int) -> list[bytes]:
    """What the process was started with; nothing where it has ended or is another user's."""
    return _fields(pid, "environ")


def arguments(pid: int) -> list[bytes]:
    """The command line."""
    return _fields(pid, "cmdline")


def _fields(pid: int, name: str) -> list[bytes]:
    try:
        return (PROC / str(pid) / name).read_bytes().split(b"\0")
    except OSError:
        return []


def wait(pidfd: int, seconds: float) -> bool:
    """Wait for the process to end. False where it still runs after that time."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
