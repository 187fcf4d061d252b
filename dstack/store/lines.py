"""Records of a log as lines: with the time each began and its stream; the last few, those since a time. Pure."""

from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from dstack.store.chunk import Record

LONGEST_LINE = 1024 * 1024


class Line(NamedTuple):
    """A line without its newline; carriage returns stay. `at` is when its first byte came."""

    stream: int
    at: float
    data: bytes

    @property
    def text(self) -> str:
        """For people and JSON; what is not UTF-8 is replaced."""
        return self.data.decode(errors="replace")

    @property
    def time(self) -> datetime:
        """`at` as aware UTC."""
        return datetime.fromtimestamp(self.at, UTC)


class Lines:
    """Puts lines together from records as they come; the streams may write in between each other."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._open: dict[int, Line] = {}

    def feed(self, records: Iterable[Record]) -> Iterator[Line]:
        """The lines that are complete now. One that is too long comes in parts."""
        for stream, at, data in records:
            *ended, rest = data.split(b"\n")
            for piece in ended:
                yield self._joined(stream, at, piece)
            if rest:
                line = self._joined(stream, at, rest)
                if len(line.data) > LONGEST_LINE:
                    yield line
                else:
                    self._open[stream] = line

    def rest(self) -> Iterator[Line]:
        """At the end: what came without a newline."""
        yield from sorted(self._open.values(), key=lambda line: line.at)
        self._open.clear()

    def _joined(self, stream: int, at: float, data: bytes) -> Line:
        begun = self._open.pop(stream, None)
        return Line(stream, at, data) if begun is None else begun._replace(data=begun.data + data)


def lines(records: Iterable[Record]) -> Iterator[Line]:
    """All lines of records that are complete."""
    together = Lines()
    yield from together.feed(records)
    yield from together.rest()


def tail(all_lines: Iterable[Line], count: int) -> tuple[Line, ...]:
    """The last `count` lines."""
    return tuple(deque(all_lines, max(0, count)))


def since(all_lines: Iterable[Line], moment: datetime) -> Iterator[Line]:
    """The lines that began at `moment` or later."""
    return (line for line in all_lines if line.at >= moment.timestamp())
