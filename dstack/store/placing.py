"""Puts the files of a manifest in place: verified, by rename, and never outside of the folder they belong in."""

import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dstack.model import keys
from dstack.model.errors import DstackError, Failed, Invalid
from dstack.model.manifest import Entry, Kind
from dstack.store import beneath, paths
from dstack.store.scanning import PART
from dstack.store.store import Store

PIECE = 1024 * 1024
MODES = 0o777
OURS = 0o700
_IN_THE_WAY = frozenset({errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY})


class Missing(Failed):
    """The store no longer has something a manifest names, or not as it was."""


class DiskFull(Failed):
    """There is no room on this machine for what is to be put in place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An entry and its place: `parts` beneath the folder `base`."""

    entry: Entry
    base: Path
    parts: tuple[bytes, ...]


def put_in_place(store: Store, steps: Iterable[Step], *, progress: Callable[[int], None]) -> None:
    """Create every step's file, link or folder, over files that stand there. `progress` is told of bytes written.

    Raises Invalid where a link or file stands in the way of a folder, Missing, DiskFull.
    """
    # Links last: nothing of the set itself can then lead a file astray.
    ordered = sorted(steps, key=lambda step: (step.entry.kind is Kind.LINK, step.parts))
    for step in ordered:
        with _explained(step), _parent(step) as (parent, name):
            if step.entry.kind is Kind.FILE:
                _file(store, step.entry, parent, name, progress)
            elif step.entry.kind is Kind.LINK:
                _link(step.entry, parent, name)
            else:
                _folder(parent, name)
    # Modes of folders from the inside out, when nothing more is to be put into them.
    for step in reversed(ordered):
        if step.entry.kind is Kind.FOLDER:
            with _explained(step), _parent(step) as (parent, name), beneath.folder(parent, (name,)) as folder:
                os.fchmod(folder, step.entry.mode & MODES)


@contextmanager
def _parent(step: Step) -> Iterator[tuple[int, bytes]]:
    with beneath.root(step.base) as root, beneath.folder(root, step.parts[:-1], create=True) as parent:
        yield parent, step.parts[-1]


@contextmanager
def _explained(step: Step) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _explain(error, paths.show(b"/".join(step.parts))) from error


def _explain(error: OSError, what: str) -> DstackError:
    if error.errno in _IN_THE_WAY:
        return Invalid(f"{what} can't be put in place: a link, file or folder stands in its way ({error.strerror})")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{what} can't be put in place: the disk of this machine is full; free space there")
    return Failed(f"{what} can't be put in place: {error.strerror}")


def _file(store: Store, entry: Entry, parent: int, name: bytes, progress: Callable[[int], None]) -> None:
    stream = store.open(keys.content(entry.sha256))
    if stream is None:
        msg = f"the store {store.url} no longer has the content of {entry.path} ({entry.sha256[:12]}…)"
        raise Missing(msg)
    with _part(parent) as part, stream as source:
        target = beneath.new_file(parent, part, mode=0o600)
        try:
            _copy(source, target, entry, progress)
            os.fchmod(target, entry.mode & MODES)
        finally:
            os.close(target)
        os.rename(part, name, src_dir_fd=parent, dst_dir_fd=parent)


def _copy(source: BinaryIO, target: int, entry: Entry, progress: Callable[[int], None]) -> None:
    digest = hashlib.sha256()
    size = 0
    # One byte more than there should be is enough to know that it is wrong.
    while piece := source.read(max(0, min(PIECE, entry.size + 1 - size))):
        digest.update(piece)
        beneath.write_all(target, piece)
        size += len(piece)
        progress(len(piece))
    if size != entry.size or digest.hexdigest() != entry.sha256:
        msg = f"the store's content of {entry.path} is not what was saved (its size or digest differs): it is damaged"
        raise Missing(msg)


def _link(entry: Entry, parent: int, name: bytes) -> None:
    with _part(parent) as part:
        os.symlink(paths.exact(entry.target, entry.raw_target), part, dir_fd=parent)
        os.rename(part, name, src_dir_fd=parent, dst_dir_fd=parent)


def _folder(parent: int, name: bytes) -> None:
    with beneath.folder(parent, (name,), create=True) as folder:
        mode = os.fstat(folder).st_mode
        if mode & OURS != OURS:  # to be written into, until its own mode is set at the end
            os.fchmod(folder, mode & MODES | OURS)


@contextmanager
def _part(parent: int) -> Iterator[bytes]:
    """The name for a file until it is whole."""
    name = PART + secrets.token_hex(8).encode()
    try:
        yield name
    finally:
        with suppress(OSError):
            os.unlink(name, dir_fd=parent)
