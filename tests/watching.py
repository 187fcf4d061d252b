"""What others on the machine can see of our processes while something runs: their command lines."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runner.shim import kernel


@contextmanager
def watched_processes() -> Iterator[set[bytes]]:
    """The command lines of all processes below ours meanwhile; those of other tests of the session are not."""
    seen: set[bytes] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.005):
            for pid in kernel.descendants(os.getpid()):
                with suppress(OSError):
                    seen.add(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" "))

    watching = threading.Thread(target=look)
    watching.start()
    try:
        yield seen
    finally:
        over.set()
        watching.join()
