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


class _Begun:
    """A line whose end has not come. Its pieces are joined once: a progress bar writes thousands of them."""

    def __init__(self, stream: int, at: float) -> None:
        self.stream, self.at = stream, at
        self.size = 0
        self._pieces: list[bytes] = []

    def add(self, data: bytes) -> None:
        self._pieces.append(data)
        self.size += len(data)

    def line(self, data: bytes = b"") -> Line:
        return Line(self.stream, self.at, b"".join((*self._pieces, data)))


class Lines:
    """Puts lines together from records as they come; the streams may write in between each other."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._open: dict[int, _Begun] = {}

    def feed(self, records: Iterable[Record]) -> Iterator[Line]:
        """The lines that are complete now. One that is too long comes in parts."""
        for stream, at, data in records:
            *ended, rest = data.split(b"\n")
            for piece in ended:
                begun = self._open.pop(stream, None) if self._open else None
                yield Line(stream, at, piece) if begun is None else begun.line(piece)
            if rest:
                begun = self._open.setdefault(stream, _Begun(stream, at))
                begun.add(rest)
                if begun.size > LONGEST_LINE:
                    yield self._open.pop(stream).line()

    def rest(self) -> Iterator[Line]:
        """At the end: what came without a newline."""
        yield from sorted((begun.line() for begun in self._open.values()), key=lambda line: line.at)
        self._open.clear()


def lines(records: Iterable[Record]) -> Iterator[Line]:
    """All lines of records that are complete."""
    together = Lines()
    yield from together.feed(records)
    yield from together.rest()


def chosen(
    all_lines: Iterable[Line], *, since: datetime | None = None, last: int | None = None
) -> Iterable[tuple[int, Line]]:
    """Those that began at `since` or later, of these the `last` few; each with its number in the log, from 0."""
    found = ((seq, line) for seq, line in enumerate(all_lines) if since is None or line.at >= since.timestamp())
    return found if last is None else deque(found, last)
