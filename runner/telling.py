"""Tells the runner's log now and then how far a transfer is, and has it give up where that is asked for."""

import logging
import time
from collections.abc import Callable

from runner.cancelling import Cancel

LOG = logging.getLogger(__name__)

EVERY_SECONDS = 10.0
_MIB = 1024 * 1024


def telling(what: str, cancel: Cancel, clock: Callable[[], float] = time.monotonic) -> Callable[[int, int], None]:
    """Fits as the `progress` of artifacts. It raises Cancelled."""
    told = clock()

    def tell(done: int, total: int) -> None:
        nonlocal told
        cancel.check()
        now = clock()
        if now - told >= EVERY_SECONDS:
            told = now
            LOG.info("%s: %d of %d MiB", what, done // _MIB, total // _MIB)

    return tell
