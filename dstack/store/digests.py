"""Remembers the digests of files, so that what has not changed is not read again to be saved again."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dstack.model.codec import Value, decode, encode
from dstack.model.errors import Invalid

LIMIT = 1024 * 1024 * 1024
# A file that changed so shortly before it was read may change again within the same tick of its file system's clock:
# git's "racily clean". FAT has the coarsest, 2 s.
TICK_NS = 2_000_000_000


class Stamp(NamedTuple):
    """What tells that a file is still the one that was read, as `stat` tells it."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


def stamp_of(about: os.stat_result) -> Stamp:
    """Times in nanoseconds."""
    return Stamp(about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)


class _Memory(Value, frozen=True, kw_only=True):
    """`files` by path, its bytes as Latin-1 text; `packs` by the digest of what the digests of its files are."""

    files: dict[str, tuple[int, int, int, int, int, str]] = {}
    packs: dict[str, str] = {}


class Digests:
    """The digests of one folder's files; kept in the file `path`, if it is given.

    It is not for files that a process still holds mapped: what is written so may not show in a file's times.
    """

    def __init__(self, path: Path | None = None) -> None:
        """A memory that can't be read is an empty one."""
        self._path = path
        old = _load(path)
        self._old, self._old_packs = old.files, old.packs
        self._files: dict[str, tuple[int, int, int, int, int, str]] = {}
        self._packs: dict[str, str] = {}

    def find(self, path: bytes, stamp: Stamp) -> str | None:
        """The digest of this file's content, where it is certain."""
        name = path.decode("latin-1")
        known = self._old.get(name)
        if known is None or known[:5] != stamp:
            return None
        self._files[name] = known
        return known[5]

    def learn(self, path: bytes, stamp: Stamp, sha256: str, *, at: int) -> None:
        """It had this content, read whole with this stamp before and after; `at` (ns) is when the reading began."""
        if max(stamp.modified, stamp.changed) < at - TICK_NS:
            self._files[path.decode("latin-1")] = (*stamp, sha256)

    def pack_of(self, members: str) -> str | None:
        """The digest of a pack, by the digest of its members' digests."""
        found = self._old_packs.get(members)
        if found is not None:
            self._packs[members] = found
        return found

    def learn_pack(self, members: str, sha256: str) -> None:
        """A pack was made."""
        self._packs[members] = sha256

    def keep(self, *, whole: bool) -> None:
        """Write down what was found and learned, and what was known before too, unless that was the `whole` folder.

        Where that fails, the next time takes longer.
        """
        if not whole:
            self._files, self._packs = self._old | self._files, self._old_packs | self._packs
        if self._path is None or (self._files == self._old and self._packs == self._old_packs):
            return
        scratch = self._path.with_name(f"{self._path.name}.new")
        try:
            scratch.write_bytes(encode(_Memory(files=self._files, packs=self._packs)))
            scratch.replace(self._path)
        except OSError:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)


def now() -> int:
    """For `learn`, in nanoseconds."""
    return time.time_ns()


def _load(path: Path | None) -> _Memory:
    if path is None:
        return _Memory()
    try:
        return decode(path.read_bytes(), _Memory, "memory of digests", limit=LIMIT)
    except (OSError, Invalid):
        return _Memory()
