"""The receiver's log goes to its controller, and nobody who knocks at the door can fill it."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

# Of one kind of message, in this many seconds.
MOST, SECONDS = 10, 60.0


@dataclass(slots=True)
class _Kind:
    began: float
    count: int = 0
    kept_back: int = 0


class ToldHandler(logging.Handler):
    """Passes on so many messages of one kind in a minute; the next one after that says how many it kept back."""

    def __init__(self, say: Callable[[int, str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`say` gets level and text."""
        super().__init__()
        self._say, self._clock = say, clock
        self._kinds: dict[str, _Kind] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """A kind is what the message is before its arguments are put in: there are as many as the code has."""
        now = self._clock()
        kind = self._kinds.setdefault(str(record.msg), _Kind(now))
        more = ""
        if now - kind.began >= SECONDS:
            more = f" ({kind.kept_back} more like this were not logged)" if kind.kept_back else ""
            kind.began, kind.count, kind.kept_back = now, 0, 0
        kind.count += 1
        if kind.count > MOST:
            kind.kept_back += 1
            return
        self._say(record.levelno, f"{self.format(record)}{more}")
