"""One process of the receiver, and the line to it."""

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from webhooks.messages import LINE_LIMIT, FromReceiver, ToReceiver, from_receiver, line

LOG = logging.getLogger(__name__)

MAIN = str(Path(__file__).with_name("__main__.py"))
# What the process may know of our environment: no credentials are among it.
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")
# Twice as many lines in /metrics, and nobody asks for them.
NO_TIMES = {"PROMETHEUS_DISABLE_CREATED_SERIES": "true"}
END_SECONDS = 5.0


class Child:
    """Started when it is made. Another thread than the one that reads may speak to it, or hang up."""

    def __init__(self, listening: socket.socket, deliveries: Path | None) -> None:
        """In a session of its own: an interrupt at the terminal is for us to obey."""
        self._line, theirs = socket.socketpair()
        with theirs:
            descriptors = (theirs.fileno(), listening.fileno())
            more = [str(deliveries)] if deliveries else []
            self.process = subprocess.Popen(
                [sys.executable, "-P", MAIN, *map(str, descriptors), str(os.getpid()), *more],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=descriptors,
                start_new_session=True,
                env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ} | NO_TIMES,
            )

    def say(self, message: ToReceiver) -> None:
        """Lost where nobody listens any more."""
        try:
            self._line.sendall(line(message))
        except OSError as error:
            LOG.debug("the receiver of webhooks doesn't listen: %s", error)

    def messages(self) -> Iterable[FromReceiver]:
        """What it says, until it ends."""
        with self._line.makefile("rb") as lines:
            while True:
                try:
                    text = lines.readline(LINE_LIMIT)
                except OSError:
                    return
                if not text:
                    return
                message = from_receiver(text)
                if message is not None:
                    yield message

    def hang_up(self) -> None:
        """It ends when nobody is on the line any more."""
        try:
            self._line.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            LOG.debug("the receiver of webhooks had hung up: %s", error)

    def end(self) -> None:
        """Wait for it, and no longer than it takes to be killed."""
        self.hang_up()
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        self._line.close()
