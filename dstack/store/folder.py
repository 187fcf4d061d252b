"""A store in a folder: an object is a file. Writes appear whole or not at all; no symbolic link in it is followed."""

import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from dstack.store import beneath, incoming, streams
from dstack.store.folder_errors import explained
from dstack.store.key import is_name, split_key, split_prefix
from dstack.store.store import Head, Sent, Source, unwatched

PIECE = 1024 * 1024
SWEEP_SECONDS = 3_600.0


class FolderStore:
    """A `Store` whose objects are the files beneath `path`, which must exist: if it vanishes, the store is away.

    Safe for many threads and processes at once. Every write is synced to the disk before it returns.
    """

    def __init__(self, path: Path, *, url: str | None = None) -> None:
        """`url`: what this store is called, where that is not the URL of `path`."""
        self.path = path.absolute()
        self.url = self.path.as_uri() if url is None else url
        self.width = 4
        self._swept: float | None = None

    def put(self, key: str, data: bytes | Source, *, if_absent: bool = False, sent: Sent = unwatched) -> bool:
        """See Store."""
        parts = _parts(key)
        if if_absent and self.head(key) is not None:
            return False
        with self._incoming(key) as new:
            for piece in _pieces(data):
                with explained(self.url, key):
                    new.write(piece)
                sent(len(piece))
            with explained(self.url, key):
                return new.keep(parts, if_absent=if_absent)

    def get(self, key: str, *, limit: int) -> bytes | None:
        """See Store."""
        stream = self.open(key)
        with explained(self.url, key):
            return streams.whole(stream, key, self.url, limit=limit)

    def open(self, key: str, *, start: int = 0, size: int | None = None) -> AbstractContextManager[BinaryIO] | None:
        """See Store."""
        parts = _parts(key)
        with explained(self.url, key), self._root() as root:
            descriptor = _open_object(root, parts)
        if descriptor is None:
            return None
        file = os.fdopen(descriptor, "rb")
        file.seek(start)
        return file if size is None else streams.Limited(file, size)

    def head(self, key: str) -> Head | None:
        """See Store."""
        parts = _parts(key)
        with explained(self.url, key), self._root() as root:
            try:
                with beneath.folder(root, parts[:-1]) as parent:
                    return _head(key, parent, parts[-1])
            except FileNotFoundError:
                return None

    def list(self, prefix: str, *, after: str = "") -> Iterator[Head]:
        """See Store. What lies in further folders comes in the place of the folder's name."""
        parts = tuple(part.encode() for part in split_prefix(prefix))
        with explained(self.url, prefix), self._root() as root:
            yield from _list(root, parts, prefix, after)

    def delete(self, key: str) -> None:
        """See Store."""
        parts = _parts(key)
        with explained(self.url, key), self._root() as root:
            try:
                with beneath.folder(root, parts[:-1]) as parent:
                    if _head(key, parent, parts[-1]) is not None:
                        os.unlink(parts[-1], dir_fd=parent)
            except FileNotFoundError:
                return

    def now(self) -> datetime:
        """See Store: this machine's clock."""
        return datetime.now(UTC)

    def _root(self) -> AbstractContextManager[int]:
        return beneath.root(self.path)

    @contextmanager
    def _incoming(self, key: str) -> Iterator[incoming.Incoming]:
        with ExitStack() as stack:
            with explained(self.url, key):
                root = stack.enter_context(self._root())
                aside = stack.enter_context(incoming.aside(root))
                self._sweep_now_and_then(aside)
                new = incoming.Incoming(root, aside)
            stack.callback(new.close)
            yield new

    def _sweep_now_and_then(self, aside: int) -> None:
        now = time.monotonic()
        if self._swept is None or now - self._swept > SWEEP_SECONDS:
            self._swept = now
            incoming.sweep(aside)


def _parts(key: str) -> tuple[bytes, ...]:
    return tuple(part.encode() for part in split_key(key))


def _pieces(data: bytes | Source) -> Iterator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    for start in range(0, data.size, PIECE):
        yield data.read(start, min(PIECE, data.size - start))


def _open_object(root: int, parts: Sequence[bytes]) -> int | None:
    try:
        with beneath.folder(root, parts[:-1]) as parent:
            descriptor = beneath.open_file(parent, parts[-1])
    except FileNotFoundError:
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def _head(key: str, parent: int, name: bytes) -> Head | None:
    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode):
        return None
    return Head(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


def _list(root: int, parts: tuple[bytes, ...], prefix: str, after: str) -> Iterator[Head]:
    try:
        with beneath.folder(root, parts) as folder:
            with os.scandir(folder) as entries:
                names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
            for name, is_folder in names:
                if not is_name(name):
                    continue
                if is_folder:
                    yield from _list(root, (*parts, name.encode()), f"{prefix}{name}/", after)
                elif prefix + name > after:
                    yield from _one(folder, prefix, name)
    except FileNotFoundError:
        return


def _one(folder: int, prefix: str, name: str) -> Iterator[Head]:
    try:
        head = _head(prefix + name, folder, name.encode())
    except FileNotFoundError:
        return
    if head is not None:
        yield head
