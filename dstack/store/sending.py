"""Sends the content of one file to the store under its digest, whatever happens to the file meanwhile."""

import hashlib
import io
import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from dstack.model import keys
from dstack.store.store import Store

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

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
    size = os.fstat(descriptor).st_size
    if size <= SMALL:
        return _send_bytes(store, os.pread(descriptor, size, 0) if size else b"", progress)
    content = _digest(_Window(descriptor, size))
    if is_fresh(store, keys.content(content.sha256), content.size):
        progress(content.size)
        return content
    try:
        store.put(keys.content(content.sha256), _stream(_Verified(descriptor, content, progress)))
    except _ChangedError:
        return _send_copy(store, descriptor, size, progress)
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


def _send_copy(store: Store, descriptor: int, size: int, progress: Progress) -> Content:
    with tempfile.TemporaryFile() as copy:
        source = _Window(descriptor, size)
        while piece := source.read(PIECE):
            copy.write(piece)
        copy.flush()
        content = _digest(_Window(copy.fileno(), size))
        store.put(keys.content(content.sha256), _stream(_Verified(copy.fileno(), content, progress)))
        return content


class _Window:
    """The first `size` bytes of a file, by position, so that nobody else's reading disturbs."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self.at = 0

    def read(self, size: int) -> bytes:
        data = os.pread(self._descriptor, min(size, self._size - self.at), self.at)
        self.at += len(data)
        return data


class _Verified(io.RawIOBase):
    """A stream of the file that raises instead of ending where the bytes were not those of the digest."""

    def __init__(self, descriptor: int, content: Content, progress: Progress) -> None:
        super().__init__()
        self._window = _Window(descriptor, content.size)
        self._content = content
        self._progress = progress
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        data = self._window.read(len(view))
        view[: len(data)] = data
        self._hash.update(data)
        self._progress(len(data))
        if not data and self._hash.hexdigest() != self._content.sha256:
            raise _ChangedError
        return len(data)


def _stream(raw: _Verified) -> BinaryIO:
    return io.BufferedReader(raw, PIECE)


def _digest(source: _Window) -> Content:
    digest = hashlib.sha256()
    while piece := source.read(PIECE):
        digest.update(piece)
    return Content(digest.hexdigest(), source.at)
