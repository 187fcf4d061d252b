"""A stream that is read again from its beginning: what in it is new. Pure.

An engine that is killed forgets what it had sent but not yet written to its own log: an unfinished line, or more. From
there on its log is shorter than what was seen, and only the bytes themselves tell where it goes on.
"""

from typing import NamedTuple

# A line that is longer is logged in pieces.
LONG = 16 * 1024


class News(NamedTuple):
    """What is new, and how many of the bytes seen last stand nowhere in the log."""

    data: bytes
    lost: int = 0


class Rejoining:
    """One stream of a log. The first `skip` bytes were seen; they should end with `known`."""

    def __init__(self, skip: int = 0, known: bytes = b"") -> None:
        """`known` may be shorter than `skip`: no more is compared than that."""
        self._skip, self._known = skip, known[max(0, len(known) - skip) :]
        self._at = 0

    def feed(self, data: bytes) -> News:
        """The next bytes of the log."""
        if self._at >= self._skip:
            return News(data)
        part = data[: self._skip - self._at]
        first = self._skip - len(self._known)
        begin = max(0, first - self._at)
        compared = part[begin:]
        place = max(0, self._at - first)
        expected = self._known[place : place + len(compared)]
        if compared == expected:
            self._at += len(part)
            return News(data[len(part) :])
        same = place + _same(compared, expected)
        if self._is_dropped(same):
            self._known, self._skip = self._known[:same] + self._known[same + 1 :], self._skip - 1
            return self.feed(data)
        # Lines are lost whole: what was the same of this one is so by chance.
        line = self._known.rfind(b"\n", 0, same) + 1
        if line == 0 and first > 0:
            # Nothing fits, so it isn't the end that differs: the number is all there is to go by.
            self._known = b""
            return self.feed(data)
        self._skip = 0
        return News(self._known[line:same] + compared[same - place :] + data[len(part) :], len(self._known) - line)

    def _is_dropped(self, at: int) -> bool:
        """Whether what differs is the end of a long line: Docker 20.10 logs such a line without it."""
        return at >= LONG and self._known[at] == ord("\n") and b"\n" not in self._known[at - LONG : at]


def _same(one: bytes, other: bytes) -> int:
    """How many bytes they have in common at their beginning."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))
