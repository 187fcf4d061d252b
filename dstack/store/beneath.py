"""Opens names beneath an open folder without ever following a symbolic link, folder by folder.

Raises plain OSError (NotADirectoryError where a symbolic link or a file stands in the way): callers know what it means.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: a named pipe at this place must not hang the reader.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def root(path: Path) -> Iterator[int]:
    """The folder to start from, open. This one may be a symbolic link: whoever named it chose so."""
    descriptor = os.open(path, _FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def folder(start: int, parts: Sequence[bytes], *, create: bool = False, durable: bool = False) -> Iterator[int]:
    """The folder at `parts` beneath `start`, open. `durable`: a folder that is created outlives a power cut."""
    descriptor = os.dup(start)
    try:
        for part in parts:
            inner = _enter(descriptor, part, create=create, durable=durable)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def open_file(parent: int, name: bytes) -> int:
    """A file for reading."""
    return os.open(name, _FILE, dir_fd=parent)


def new_file(parent: int, name: bytes, *, mode: int) -> int:
    """A file that did not exist, for writing and reading; `mode` is subject to the umask."""
    return os.open(name, _NEW, mode, dir_fd=parent)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of it, however little the system takes at once."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def write_at(descriptor: int, data: bytes, start: int) -> int:
    """Likewise, at a position; how much it was."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, start)
        start, rest = start + written, rest[written:]
    return len(data)


def _enter(parent: int, name: bytes, *, create: bool, durable: bool) -> int:
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=parent)
    if durable:
        os.fsync(parent)
    return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
