"""^C, kept in mind: Python loses a KeyboardInterrupt that comes within a callback of its own (`__del__`, an import).

So the handler also remembers, and whoever is about to do something that can't be undone, or to wait, asks.
"""

import signal
import sys
import threading
import time
from types import FrameType

# How late a signal is handled that came at the wrong moment.
WAIT_SECONDS = 0.5


class Interrupts:
    """The handler of SIGINT. `pending`: there was one, and nobody has dealt with it yet."""

    def __init__(self) -> None:
        """None yet."""
        self.pending = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Remember it, and raise KeyboardInterrupt as Python's own handler does."""
        self.pending = True
        raise KeyboardInterrupt


def remember() -> None:
    """From now on keep interrupts in mind; and don't print those that Python can't raise where they came."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, Interrupts())
        sys.unraisablehook = _quiet


def is_pending() -> bool:
    """Whether an interrupt came that nobody has dealt with."""
    handler = signal.getsignal(signal.SIGINT)
    return isinstance(handler, Interrupts) and handler.pending


def check() -> None:
    """Raise the interrupt that may have got lost."""
    if is_pending():
        raise KeyboardInterrupt


def answered() -> None:
    """It has been dealt with."""
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, Interrupts):
        handler.pending = False


def sleep(seconds: float) -> None:
    """Wait, and raise KeyboardInterrupt soon where the user interrupts."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        check()
        time.sleep(min(left, 0.2))


def wait(event: threading.Event) -> None:
    """Until it is set, in the main thread: a signal that comes just before a wait without end would not be handled."""
    while not event.wait(WAIT_SECONDS):
        pass


def _quiet(unraisable: "sys.UnraisableHookArgs") -> None:
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
