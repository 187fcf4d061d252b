"""Puts the files of a manifest in place: verified, by rename, and never outside of the folder they belong in."""

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dstack.model.errors import DstackError, Failed, Invalid
from dstack.model.manifest import Entry, Kind, Pack
from dstack.store import beneath, fetching, paths
from dstack.store.fetching import MIB, Span
from dstack.store.parents import Parents
from dstack.store.scanning import PART
from dstack.store.store import Store
from dstack.store.tally import Tally
from dstack.store.workers import Workers

MODES = 0o777
OURS = 0o700
# A larger object comes in parts, several at once.
LARGE = 32 * MIB
_IN_THE_WAY = frozenset({errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY})


class DiskFull(Failed):
    """There is no room on this machine for what is to be put in place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An entry and its place: `parts` beneath the folder `base`."""

    entry: Entry
    base: Path
    parts: tuple[bytes, ...]


def put_in_place(store: Store, steps: Iterable[Step], packs: Sequence[Pack], tally: Tally) -> None:
    """Create every step's file, link or folder, over files that stand there; what is there already is left alone.

    Raises Invalid where a link or file stands in the way of a folder, Missing, DiskFull, and what the tally raises.
    """
    ordered = sorted(steps, key=lambda step: step.parts)
    folders = [step for step in ordered if step.entry.kind is Kind.FOLDER]
    _each(folders, lambda step, parent: _folder(parent, step.parts[-1]))
    with Workers(store.width) as workers:
        tally.watch(workers)
        _Files(store, packs, tally, workers).begin([step for step in ordered if step.entry.kind is Kind.FILE])
    # Links last: nothing of the set itself can then lead a file astray.
    links = [step for step in ordered if step.entry.kind is Kind.LINK]
    _each(links, lambda step, parent: _link(step.entry, parent, step.parts[-1]))
    # Modes of folders from the inside out, when nothing more is to be put into them.
    _each(folders[::-1], _set_mode)


def _each(steps: Sequence[Step], act: Callable[[Step, int], None]) -> None:
    with Parents(create=True) as parents:
        for step in steps:
            with _explained(step):
                act(step, parents.of(step.base, step.parts))


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


class _Files:
    """The files of a set, several at once."""

    def __init__(self, store: Store, packs: Sequence[Pack], tally: Tally, workers: Workers) -> None:
        self._store = store
        self._packs = packs
        self._tally = tally
        self._workers = workers

    def begin(self, steps: Sequence[Step]) -> None:
        """Have all of them put in place by the workers."""
        packed: dict[int, list[Step]] = {}
        for step in steps:
            if step.entry.pack is not None:
                packed.setdefault(step.entry.pack, []).append(step)
        for pack, wanted in packed.items():
            self._workers.start(partial(self._members, self._packs[pack], wanted))
        alone = [step for step in steps if step.entry.pack is None]
        for step in alone:
            if step.entry.size <= LARGE:
                self._workers.start(partial(self._alone, step, fetching.copy))
        for step in alone:
            if step.entry.size > LARGE:
                self._alone(step, partial(fetching.copy_in_parts, workers=self._workers))

    def _alone(self, step: Step, copy: Callable[[Store, Entry, int, Callable[[int], None]], None]) -> None:
        with _explained(step), Parents(create=True) as parents:
            parent = parents.of(step.base, step.parts)
            if not self._stands(parent, step):
                with _new(parent, step) as target:
                    copy(self._store, step.entry, target, self._tally.add)

    def _members(self, pack: Pack, steps: Sequence[Step]) -> None:
        with Parents(create=True) as parents:
            wanted: dict[Span, list[Step]] = {}
            for step in steps:
                with _explained(step):
                    if not self._stands(parents.of(step.base, step.parts), step):
                        wanted.setdefault(Span(step.entry.offset, step.entry.size), []).append(step)
            spans = sorted(wanted)
            with closing(fetching.members(self._store, pack.sha256, steps[0].entry.path, spans)) as parts:
                for span, data in zip(spans, parts, strict=True):
                    self._write(data, wanted[span], parents)

    def _write(self, data: bytes, steps: Sequence[Step], parents: Parents) -> None:
        digest = hashlib.sha256(data).hexdigest()
        for step in steps:
            fetching.verify(self._store, step.entry, len(data), digest)
            with _explained(step):
                with _new(parents.of(step.base, step.parts), step) as target:
                    beneath.write_all(target, data)
                self._tally.add(len(data))

    def _stands(self, parent: int, step: Step) -> bool:
        """Whether the very file is there, nobody else's: then it gets its mode, and need not be fetched."""
        try:
            descriptor = beneath.open_file(parent, step.parts[-1])
        except OSError:
            return False
        try:
            if not _ours(descriptor, step.entry.size) or self._digest(descriptor) != step.entry.sha256:
                return False
            os.fchmod(descriptor, step.entry.mode & MODES)
        finally:
            os.close(descriptor)
        self._tally.add(step.entry.size)
        return True

    def _digest(self, descriptor: int) -> str:
        digest, at = hashlib.sha256(), 0
        while piece := os.pread(descriptor, MIB, at):
            digest.update(piece)
            at += len(piece)
            self._tally.add(0)
        return digest.hexdigest()


def _ours(descriptor: int, size: int) -> bool:
    """A second name of the file would let who knows it alter what is put in place."""
    about = os.fstat(descriptor)
    plain = stat.S_ISREG(about.st_mode) and about.st_nlink == 1 and about.st_uid == os.geteuid()
    return plain and about.st_size == size


@contextmanager
def _new(parent: int, step: Step) -> Iterator[int]:
    """An open file that takes its place, with its mode, when it is whole."""
    with _part(parent) as part:
        target = beneath.new_file(parent, part, mode=0o600)
        try:
            yield target
            os.fchmod(target, step.entry.mode & MODES)
        finally:
            os.close(target)
        os.rename(part, step.parts[-1], src_dir_fd=parent, dst_dir_fd=parent)


def _link(entry: Entry, parent: int, name: bytes) -> None:
    with _part(parent) as part:
        os.symlink(paths.exact(entry.target, entry.raw_target), part, dir_fd=parent)
        os.rename(part, name, src_dir_fd=parent, dst_dir_fd=parent)


def _folder(parent: int, name: bytes) -> None:
    with beneath.folder(parent, (name,), create=True) as folder:
        mode = os.fstat(folder).st_mode
        if mode & OURS != OURS:  # to be written into, until its own mode is set at the end
            os.fchmod(folder, mode & MODES | OURS)


def _set_mode(step: Step, parent: int) -> None:
    with beneath.folder(parent, step.parts[-1:]) as folder:
        os.fchmod(folder, step.entry.mode & MODES)


@contextmanager
def _part(parent: int) -> Iterator[bytes]:
    """The name for a file until it is whole."""
    name = PART + secrets.token_hex(8).encode()
    try:
        yield name
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=parent)
        raise
