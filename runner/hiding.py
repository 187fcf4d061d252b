"""Hides secrets in an attempt's output without changing its order: what one stream holds back, all that follows waits.

Each stream has a masker of its own, since streams are read apart. Bytes keep their number and place, so that how far
the store has the log is told by a number, also after a restart.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runner.masking import Masker

# So long (in ticks), and so many bytes, are held back at most.
HOLD_SECONDS = 1.0
HOLD_BYTES = 8 * 1024 * 1024

Piece = tuple[int, float, bytes]
Tail = tuple[bytes, bytes]


@dataclass(slots=True)
class _Waiting:
    """A piece that isn't shown whole yet: `left` bytes are to come, `shown` are known and not given out."""

    stream: int
    at: float
    left: int
    since: float
    shown: bytes = b""


class Hiding:
    """One log's. Without secrets everything passes as it comes."""

    def __init__(self, wanted: tuple[bytes, ...], tails: Mapping[int, Tail] | None = None) -> None:
        """`wanted`: what `needles` gave. `tails`: those of one that ended where this begins."""
        self._wanted = wanted
        self._maskers = {stream: Masker(wanted, tail) for stream, tail in (tails or {}).items()}
        self._queue: deque[_Waiting] = deque()
        self._open: dict[int, deque[_Waiting]] = {}

    @property
    def tails(self) -> Mapping[int, Tail]:
        """What one that begins here has to know. Only where nothing waits."""
        return {stream: masker.tail for stream, masker in self._maskers.items() if masker.tail[0]}

    @property
    def waits(self) -> bool:
        """Whether anything is held back."""
        return bool(self._queue)

    def is_due(self, now: float) -> bool:
        """Whether something was held back for long enough."""
        return self.waits and now - self._queue[0].since >= HOLD_SECONDS

    def feed(self, pieces: Iterable[Piece], now: float) -> list[Piece]:
        """What can be shown now, in the order in which it came."""
        if not self._wanted:
            return list(pieces)
        for stream, at, data in pieces:
            one = _Waiting(stream, at, len(data), now)
            self._queue.append(one)
            self._open.setdefault(stream, deque()).append(one)
            self._fill(stream, self._masker(stream).feed(data))
        given = self._given()
        return given + self.flush() if sum(one.left + len(one.shown) for one in self._queue) > HOLD_BYTES else given

    def flush(self) -> list[Piece]:
        """Show all that is held back."""
        for stream, masker in self._maskers.items():
            self._fill(stream, masker.flush())
        return self._given()

    def _masker(self, stream: int) -> Masker:
        return self._maskers.setdefault(stream, Masker(self._wanted))

    def _fill(self, stream: int, data: bytes) -> None:
        """Bytes of a stream as they are to be shown: they belong to the pieces of it that wait, in order."""
        waiting = self._open.get(stream, deque())
        while data:
            one = waiting[0]
            size = min(one.left, len(data))
            one.shown, one.left, data = one.shown + data[:size], one.left - size, data[size:]
            if not one.left:
                waiting.popleft()

    def _given(self) -> list[Piece]:
        """What no held byte stands before, taken from the queue."""
        given: list[Piece] = []
        while self._queue:
            one = self._queue[0]
            if one.shown:
                given.append((one.stream, one.at, one.shown))
                one.shown = b""
            if one.left:
                break
            self._queue.popleft()
        return given
