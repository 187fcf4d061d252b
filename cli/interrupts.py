"""^C: held back while a push is under way, so that it is known what was pushed."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dstack import interrupts


@contextmanager
def deferred() -> Iterator[None]:
    """An interrupt within the block comes when it has ended; a second one comes at once."""
    interrupts.check()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def goes_on(run: str) -> str:
    """What to tell somebody who leaves a run."""
    return f"{run} goes on: `dstack logs -f {run}` follows it, `dstack stop {run}` stops it"
