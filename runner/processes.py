"""Processes of this machine, found in /proc and signalled by pidfd, so that a recycled id never hits a stranger."""

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from runner.shim import kernel

PROC = Path("/proc")
PAUSE = 0.002
PASSES, PASS_SECONDS = 10, 0.02


class Program(NamedTuple):
    """What a process runs: exec(2) makes another of it."""

    pid: int
    started: int
    arguments: tuple[bytes, ...]


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


def terminate_below(root: int) -> None:
    """Send SIGTERM to every descendant of `root`, once for each program that it runs.

    A shell's child between fork and exec swallows the signal with the handler it inherited. So what has become another
    program since, or was not there before, is told too; whatever handles the signal is not told twice. Parents come
    first: a shell under `set -e` whose command was ended before it is told itself exits, and its trap never runs.
    """
    told: set[Program] = set()
    for _ in range(PASSES):
        programs = {pid: Program(pid, kernel.started(str(pid)), tuple(arguments(pid))) for pid in alive_below(root)}
        new = [program for program in programs.values() if program not in told]
        signal_all(root, [program.pid for program in new], signal.SIGTERM)
        told.update(new)
        if told and not new and not any(looks_forked(program, programs) for program in programs.values()):
            return
        time.sleep(PASS_SECONDS)


def looks_forked(program: Program, programs: dict[int, Program]) -> bool:
    """Whether it may still be the copy of its parent that fork(2) makes."""
    parent = programs.get(kernel.parent(str(program.pid)))
    return parent is not None and parent.arguments == program.arguments


def kill_below(root: int, pidfd: int, seconds: float) -> None:
    """Kill every descendant of `root`, again until it has ended itself, as it does alone, or the time is up."""
    deadline = time.monotonic() + seconds
    while not wait(pidfd, PAUSE) and time.monotonic() < deadline:
        signal_all(root, alive_below(root), signal.SIGKILL)


def signal_all(root: int, pids: list[int], number: signal.Signals) -> None:
    """Signal those of the processes that are (still) below `root`."""
    with ExitStack() as stack:
        found = {pid: stack.enter_context(held(pid)) for pid in pids}
        # Looked for again after the descriptors were opened: what is below `root` now is no stranger.
        below = set(kernel.descendants(root))
        for pid, fd in found.items():
            if fd is not None and pid in below:
                send(fd, number)


def alive_below(root: int) -> list[int]:
    """Every descendant of `root` that runs."""
    return [pid for pid in kernel.descendants(root) if is_alive(pid)]


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
