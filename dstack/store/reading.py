"""Reads the files that are saved: for their digest, and again, sure that they are still what the digest was of."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec
from zlib_ng.zlib_ng import crc32

from dstack.store import beneath
from dstack.store.digests import Stamp, now, stamp_of
from dstack.store.parents import Parents
from dstack.store.scanning import Found

PIECE = 1024 * 1024


class Content(msgspec.Struct, frozen=True, gc=False):
    """Digest, and bytes."""

    sha256: str
    size: int


class ChangedError(Exception):
    """The file is not what it was when its digest was taken."""


class Reading(NamedTuple):
    """A whole reading of a file: `stamp` is None where the file changed meanwhile; it began `at` (ns)."""

    content: Content
    stamp: Stamp | None
    at: int


class Window:
    """The first `size` bytes of an open file, by position, so that nobody else's reading disturbs."""

    def __init__(self, descriptor: int, size: int) -> None:
        """The descriptor stays the caller's."""
        self.size = size
        self._descriptor = descriptor

    def read_some(self, start: int, size: int) -> bytes:
        """As many as the file still has."""
        return os.pread(self._descriptor, max(0, min(size, self.size - start)), start)

    def read_into(self, start: int, room: memoryview) -> memoryview:
        """Likewise into `room`: what of it was filled."""
        return room[: os.preadv(self._descriptor, [room[: max(0, self.size - start)]], start)]


class Verified:
    """A source of the file that raises ChangedError where the bytes are not those of the digest, in whatever order."""

    def __init__(self, window: Window, size: int, checks: list[int]) -> None:
        """`checks`: the CRC-32 of each piece of the first `size` bytes."""
        self.size = size
        self.window = window
        self._checks = checks

    def read(self, start: int, size: int) -> bytes:
        """See Source."""
        first = start // PIECE * PIECE
        last = min(self.size, (start + size + PIECE - 1) // PIECE * PIECE)
        data = self.window.read_some(first, last - first)
        if len(data) != last - first:
            raise ChangedError
        view = memoryview(data)
        for at in range(first, last, PIECE):
            if crc32(view[at - first : at - first + PIECE]) != self._checks[at // PIECE]:
                raise ChangedError
        return data if (first, last - first) == (start, size) else data[start - first : start - first + size]


@contextmanager
def opened(found: Found, parents: Parents) -> Iterator[int]:
    """The file, open. Raises FileNotFoundError where no regular file is there any more, OSError."""
    descriptor = beneath.open_file(parents.of(found.base, found.parts), found.parts[-1])
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileNotFoundError
        yield descriptor
    finally:
        os.close(descriptor)


def read_small(found: Found, parents: Parents) -> tuple[bytes, Reading]:
    """A small file whole. One that grows counts as long as it was at first. Raises as `opened`."""
    with opened(found, parents) as descriptor:
        at, before = now(), stamp_of(os.fstat(descriptor))
        data = os.pread(descriptor, min(before.size, found.size), 0) if found.size else b""
        stamp = before if stamp_of(os.fstat(descriptor)) == before and len(data) == before.size else None
    return data, Reading(Content(hashlib.sha256(data).hexdigest(), len(data)), stamp, at)


def digest(descriptor: int, check: Callable[[], None]) -> tuple[Reading, Verified]:
    """An open file's digest, and what reads it again. `check` is called between pieces."""
    at, before = now(), stamp_of(os.fstat(descriptor))
    window, whole = Window(descriptor, before.size), hashlib.sha256()
    size, checks, room = 0, list[int](), memoryview(bytearray(PIECE))
    while piece := window.read_into(size, room):
        whole.update(piece)
        checks.append(crc32(piece))
        size += len(piece)
        check()
    stamp = before if stamp_of(os.fstat(descriptor)) == before and size == before.size else None
    return Reading(Content(whole.hexdigest(), size), stamp, at), Verified(window, size, checks)
