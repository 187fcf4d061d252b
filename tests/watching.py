"""What others on the machine can see of a test's processes while something runs: their command lines."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def watched_processes() -> Iterator[set[bytes]]:
    """The command lines of all processes there are meanwhile, but for those of another test of the session."""
    seen: set[bytes] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.005):
            for process in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    whose = _home(process)
                    line = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                    with suppress(OSError):
                        whose = _home(process)  # it may have become another program meanwhile
                    if not _is_of_another_test(whose):
                        seen.add(line)

    watching = threading.Thread(target=look)
    watching.start()
    try:
        yield seen
    finally:
        over.set()
        watching.join()


def _home(process: Path) -> str:
    """The home folder in its environment; empty where there is none, or it isn't ours to read."""
    with suppress(PermissionError):
        words = (process / "environ").read_bytes().split(b"\0")
        return next((os.fsdecode(word[5:]) for word in words if word.startswith(b"HOME=")), "")
    return ""


def _is_of_another_test(home: str) -> bool:
    """Each test has a home of its own, beside the others' or beside those of another worker."""
    own, other = Path(os.environ["HOME"]), Path(home)
    return other.name.startswith("home") and other.parent.parent == own.parent.parent and other != own
