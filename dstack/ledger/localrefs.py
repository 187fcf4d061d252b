"""The polled refs of a repository on this machine, read from its files: what a fetch would tell, without its processes.

What did not change since the last look is not read again. git's own rules hold: a loose ref stands before a packed one.
"""

import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from dstack.model import refs

_OID = re.compile(r"[0-9a-f]{40}\n?")
# Stands for the id of a ref whose file holds none: a crash, or somebody's editor. It is not gone, and not to be moved.
MALFORMED = "0" * 40
_UNPOLLED = "refs/dstack/snapshots"
# A file's time, inode and size tell that it has changed; nobody's clock is that fine for ever, so look again (seconds).
_TRUSTED = 3.0

_Mark = tuple[int, int, int]


class LocalRefs:
    """For one thread at a time."""

    def __init__(self, path: Path, polled: Sequence[str] = refs.POLLED) -> None:
        """`path`: the git folder. `polled`: refspecs, each with one `*` at the end of either side."""
        self._path = path
        self._patterns = tuple(pattern.removeprefix("+").partition("*")[0] for pattern in polled)
        self._folders = tuple(sorted({pattern.rpartition("/")[0] for pattern in self._patterns}))
        self._loose: dict[str, tuple[_Mark, str]] = {}
        self._packed: tuple[_Mark | None, dict[str, str]] = (None, {})
        self._read_at = -_TRUSTED

    def read(self) -> dict[str, str] | None:
        """Every polled ref with its id; None where only git can tell: no repository, other formats, symbolic refs.

        A ref whose file is malformed has the id MALFORMED; it stands in nobody else's way.
        """
        if not (self._path / "HEAD").is_file() or (self._path / "reftable").exists():
            return None
        if time.monotonic() >= self._read_at + _TRUSTED:
            self._loose, self._packed, self._read_at = {}, (None, {}), time.monotonic()
        # Loose before packed: one that is packed meanwhile is then found there.
        self._loose = dict(self._read_loose())
        loose = {name: oid for name, (_, oid) in self._loose.items()}
        if any(text.startswith("ref:") for text in loose.values()):
            return None
        return {**self._read_packed(), **{name: _oid(text) for name, text in loose.items()}}

    def _read_loose(self) -> Iterator[tuple[str, tuple[_Mark, str]]]:
        for folder in self._folders:
            for name, mark in _walk(f"{self._path}/", folder, self._patterns):
                known = self._loose.get(name)
                if known is not None and known[0] == mark:
                    yield name, known
                elif (text := _text(self._path / name)) is not None:
                    yield name, (mark, text)

    def _read_packed(self) -> dict[str, str]:
        file = self._path / "packed-refs"
        try:
            mark = _mark(file.stat())
        except OSError:
            self._packed = (None, {})
        else:
            if mark != self._packed[0]:
                self._packed = (mark, _parse_packed(_text(file) or "", self._patterns))
        return self._packed[1]


def _oid(text: str) -> str:
    return text.strip() if _OID.fullmatch(text) else MALFORMED


def _walk(root: str, folder: str, patterns: tuple[str, ...]) -> Iterator[tuple[str, _Mark]]:
    try:
        with os.scandir(root + folder) as entries:
            found = list(entries)
    except OSError:
        return
    for entry in found:
        name = f"{folder}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            if name != _UNPOLLED:
                yield from _walk(root, name, patterns)
        elif not name.endswith(".lock") and name.startswith(patterns):
            try:
                yield name, _mark(entry.stat(follow_symlinks=False))
            except OSError:
                continue  # gone since: deleted, or packed, and then it is found there


def _parse_packed(text: str, patterns: tuple[str, ...]) -> dict[str, str]:
    """Source: gitrepository-layout(5). Lines of comments (`#`) and peeled tags (`^`) are left out."""
    lines = (line.partition(" ") for line in text.splitlines() if line[:1] not in "#^")
    return {name: oid for oid, _, name in lines if name.startswith(patterns)}


def _mark(found: os.stat_result) -> _Mark:
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
