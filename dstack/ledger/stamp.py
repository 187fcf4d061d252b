"""What changes when a ref of dstack changes in a repository on this machine: looked at before a fetch is paid for."""

import os
from collections.abc import Mapping
from pathlib import Path

# Folders of loose refs that a poll fetches, and the files where a ref may stand otherwise.
_FOLDERS = ("refs/heads/dstack", "refs/notes/dstack", "refs/dstack", "refs/tags/dstack")
_FILES = ("packed-refs", "reftable/tables.list")
_UNPOLLED = "refs/dstack/snapshots"

Mark = tuple[int, int, int]
Stamp = Mapping[str, Mark]


def take(remote: Path) -> Stamp:
    """Time of change, inode and size of every file that holds a ref, by its path within `remote`."""
    marks: dict[str, Mark] = {}
    for name in _FILES:
        try:
            marks[name] = _mark(os.stat(remote / name))  # noqa: PTH116 (called at every wake-up)
        except OSError:
            continue
    for name in _FOLDERS:
        _walk(f"{remote}/", name, marks)
    return marks


def is_ours(remote: Path, before: Stamp, after: Stamp, written: Mapping[str, str | None]) -> bool:
    """Whether all that lies between two stamps is what we have pushed ourselves: these refs, with these ids."""
    others = (before.keys() | after.keys()) - written.keys()
    if any(before.get(name) != after.get(name) for name in others):
        return False
    return all(
        _content(remote / name) == (oid or "") for name, oid in written.items() if not name.startswith(_UNPOLLED)
    )


def _walk(root: str, folder: str, marks: dict[str, Mark]) -> None:
    try:
        with os.scandir(root + folder) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if name != _UNPOLLED:
                        _walk(root, name, marks)
                elif not name.endswith(".lock"):
                    marks[name] = _mark(entry.stat(follow_symlinks=False))
    except OSError:
        return  # a folder that has just gone is no longer in the stamp, and that is the news


def _mark(found: os.stat_result) -> Mark:
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
