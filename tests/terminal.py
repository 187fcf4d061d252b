"""A command on a real terminal: what it shows is waited for, and keys are pressed."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

INTERRUPT = "\x03"
END_OF_INPUT = "\x04"
PATIENCE = 20.0
# The terminal must be the child's own for its keys to become signals.
_ENTER = (
    "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from dstack.__main__ import main; "
    "sys.exit(main())"
)


class Terminal:
    """`shown` is everything the command has printed and what was typed."""

    def __init__(self, process: "subprocess.Popen[bytes]", side: int) -> None:
        self.process, self._side, self.shown = process, side, ""
        self._read_to = 0

    def expect(self, text: str) -> None:
        """Wait until it is shown, behind what was last expected."""
        end = time.monotonic() + PATIENCE
        while text not in self.shown[self._read_to :]:
            assert self._take(end - time.monotonic()), f"{text!r} never came; shown: {self.shown!r}"
        self._read_to = self.shown.index(text, self._read_to) + len(text)

    def press(self, keys: str) -> None:
        """Type it."""
        os.write(self._side, keys.encode())

    def end(self) -> int:
        """Wait for the end; the exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._take(deadline - time.monotonic()):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def _take(self, seconds: float) -> bool:
        """Whether more was shown in this time; never, once the command has ended."""
        ready, _, _ = select.select([self._side], [], [], max(0.0, seconds))
        try:
            data = os.read(self._side, 4096) if ready else b""
        except OSError:  # the command's side is closed: that is how a terminal ends
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)


@contextmanager
def terminal(folder: Path, *args: str, **more: str) -> Iterator[Terminal]:
    """`dstack -C folder …` on a terminal of its own. It has ended when the block has."""
    ours, theirs = pty.openpty()
    environment: Mapping[str, str] = {**os.environ, "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "200", **more}
    command = [sys.executable, "-c", _ENTER, "-C", str(folder), *args]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    ) as process:
        os.close(theirs)
        try:
            yield Terminal(process, ours)
        finally:
            process.kill()
            os.close(ours)
