"""Sends the content of one file to the store under its digest, whatever happens to the file meanwhile."""

import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from dstack.model import keys
from dstack.store.store import Store

PIECE = 1024 * 1024
# Read into memory once; what is larger is read twice: for its digest, and to be sent.
SMALL = 4 * PIECE
# An object this young is safe from prune until the manifest that names it is written.
FRESH = timedelta(days=1)

Progress = Callable[[int], None]


class Content(NamedTuple):
    """What was stored: digest, and bytes."""

    sha256: str
    size: int


class _ChangedError(Exception):
    """The file is not what it was when its digest was taken."""


def send(store: Store, descriptor: int, *, progress: Progress) -> Content:
    """Store an open file's content, unless the store has it and it is fresh. `progress` is told of bytes dealt with.

    A file that grows counts as long as it was at first; one that changes otherwise is sent from a private copy.
    """
    source = _Window(descriptor, os.fstat(descriptor).st_size)
    if source.size <= SMALL:
        return _send_bytes(store, source.read_some(0, source.size), progress)
    digested = _digest(source)
    content = digested.content
    if is_fresh(store, keys.content(content.sha256), content.size):
        progress(content.size)
        return content
    try:
        store.put(keys.content(content.sha256), _Verified(source, digested), sent=progress)
    except _ChangedError:
        return _send_copy(store, source, progress)
    return content


def is_fresh(store: Store, key: str, size: int) -> bool:
    """Whether the store has this object whole, and young enough to rely on."""
    head = store.head(key)
    return head is not None and head.size == size and store.now() - head.modified < FRESH


def _send_bytes(store: Store, data: bytes, progress: Progress) -> Content:
    content = Content(hashlib.sha256(data).hexdigest(), len(data))
    key = keys.content(content.sha256)
    if not is_fresh(store, key, content.size):
        store.put(key, data)
    progress(content.size)
    return content


def _send_copy(store: Store, source: "_Window", progress: Progress) -> Content:
    with tempfile.TemporaryFile() as copy:
        size = 0
        while piece := source.read_some(size, PIECE):
            copy.write(piece)
            size += len(piece)
        copy.flush()
        digested = _digest(still := _Window(copy.fileno(), size))
        store.put(keys.content(digested.content.sha256), _Verified(still, digested), sent=progress)
        return digested.content


class _Window:
    """The first `size` bytes of a file, by position, so that nobody else's reading disturbs."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self.size = size

    def read_some(self, start: int, size: int) -> bytes:
        """As many as the file still has."""
        return os.pread(self._descriptor, max(0, min(size, self.size - start)), start)


class _Verified:
    """A source of the file that raises where the bytes are not those of the digest, in whatever order it is read."""

    def __init__(self, window: _Window, digested: "_Digested") -> None:
        self.size = digested.content.size
        self._window = window
        self._checks = digested.checks

    def read(self, start: int, size: int) -> bytes:
        first, last = start // PIECE, (start + size + PIECE - 1) // PIECE
        pieces = [self._piece(number) for number in range(first, last)]
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        at = start - first * PIECE
        return data if (at, size) == (0, len(data)) else data[at : at + size]

    def _piece(self, number: int) -> bytes:
        data = self._window.read_some(number * PIECE, min(PIECE, self.size - number * PIECE))
        if zlib.crc32(data) != self._checks[number]:
            raise _ChangedError
        return data


class _Digested(NamedTuple):
    """A file's content; `checks`: the CRC-32 of each piece of it."""

    content: Content
    checks: list[int]


def _digest(source: _Window) -> _Digested:
    digest = hashlib.sha256()
    size, checks = 0, []
    while piece := source.read_some(size, PIECE):
        digest.update(piece)
        checks.append(zlib.crc32(piece))
        size += len(piece)
    return _Digested(Content(digest.hexdigest(), size), checks)
