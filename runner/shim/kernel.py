"""What the shim asks of Linux beyond `os`: to be told of orphans and ended children, and to find every descendant."""

import ctypes
import os

SIGKILL, SIGTERM, SIGCHLD, SIGSTOP, SIG_IGN = 9, 15, 17, 19, 1
FAULTS = (4, 5, 6, 7, 8, 11)
PR_SET_CHILD_SUBREAPER, SIG_BLOCK, SFD_NONBLOCK_CLOEXEC = 36, 0, 0o2004000
SIGSET_BYTES = 128
RESETTABLE = tuple(number for number in range(1, 32) if number not in (SIGKILL, SIGSTOP))


def become_reaper() -> int:
    """Have orphans fall to us (prctl(2)) and ignore signals meant for the commands.

    Returns a descriptor that is readable when a child has ended (signalfd(2)).
    """
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in RESETTABLE:
        if number not in (SIGCHLD, *FAULTS):
            libc.signal(number, ctypes.c_void_p(SIG_IGN))
    mask = ctypes.create_string_buffer(SIGSET_BYTES)
    libc.sigemptyset(mask)
    libc.sigaddset(mask, SIGCHLD)
    libc.sigprocmask(SIG_BLOCK, mask, None)
    return int(libc.signalfd(-1, mask, SFD_NONBLOCK_CLOEXEC))


def prefer_for_oom(score: str) -> str:
    """Have the kernel, short of memory, choose what is started now before us and the runner. The score before."""
    try:
        with open("/proc/self/oom_score_adj", "r+", encoding="ascii") as file:
            before = file.read().strip()
            file.seek(0)
            file.write(score)
    except OSError:
        return score
    return before


def descendants(root: int) -> list[int]:
    """Every process below `root`, parents before their children."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            children.setdefault(parent(name), []).append(int(name))
    found = list(children.get(root, ()))
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def parent(pid: str) -> int:
    """The parent's id; 0 where the process has ended."""
    fields = stat(pid)
    return int(fields[1]) if fields else 0


def started(pid: str) -> int:
    """When the process started, in clock ticks since boot; 0 where it has ended."""
    fields = stat(pid)
    return int(fields[19]) if fields else 0


def stat(pid: str) -> list[bytes]:
    """The fields of proc(5) `stat` from the state on: those behind the name, which may contain anything."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def boot() -> str:
    """The id of this boot: process ids and start times mean nothing in another."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def kill(pid: int) -> None:
    """Kill a process that may have ended."""
    try:
        os.kill(pid, SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
