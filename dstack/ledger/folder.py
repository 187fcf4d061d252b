"""The folder of a cache: made, locked and thrown away so that processes that share it never see half of it."""

import fcntl
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dstack.ledger import objects
from dstack.ledger.objects import Damaged, Objects
from dstack.model.errors import Failed

_NEW, _WASTE = "new", "waste"
_DAY = 86_400
_TRIES = 5  # another process may be throwing it away at the same time


def open_folder(path: Path, lenders: Sequence[Path]) -> Objects:
    """The cache at `path`, made where there is none, or a broken one, or one that borrows elsewhere. Raises Failed."""
    for _ in range(_TRIES):
        if (path / "HEAD").is_file() and objects.lenders_of(path) == tuple(lenders):
            with suppress(Damaged):
                return Objects.open(path)
        discard(path)
        _create(path, lenders)
    return Objects.open(path)


def marks(path: Path) -> tuple[tuple[int, int, int], ...]:
    """What tells that the folder is another one now, or that somebody has meddled with it."""
    found = []
    for name in ("", "HEAD", "config", "packed-refs", "objects/info/alternates"):
        try:
            file = (path / name).stat()
        except OSError:
            continue
        found.append((file.st_ino, 0, 0) if not name else (file.st_ino, file.st_mtime_ns, file.st_size))
    return tuple(found)


def discard(path: Path) -> None:
    """Take the folder out of the way in one step, then remove it."""
    waste = _sibling(path, _WASTE)
    with suppress(FileNotFoundError, NotADirectoryError):
        path.rename(waste)
    shutil.rmtree(waste, ignore_errors=True)


@contextmanager
def made_anew(path: Path) -> Iterator[Path]:
    """A folder beside, which takes the place of whatever stands there when it is whole. Raises OSError."""
    scratch, wastes = _sibling(path, _NEW), list[Path]()
    scratch.mkdir(parents=True, mode=0o700)
    try:
        yield scratch
        for left in reversed(range(_TRIES)):
            with suppress(FileNotFoundError, NotADirectoryError):
                path.rename(waste := _sibling(path, _WASTE))
                wastes.append(waste)
            try:
                scratch.rename(path)
            except OSError:  # who still writes there has made it again
                if not left:
                    raise
            else:
                return
    finally:
        for each in (scratch, *wastes):
            shutil.rmtree(each, ignore_errors=True)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """One process at a time: for fetches, which would trip over each other's ref locks."""
    with path.with_name(f"{path.name}.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes have left in and beside the folder, a day later."""
    beside = (found for kind in (_NEW, _WASTE) for found in path.parent.glob(f"{path.name}.{kind}-*"))
    for left in (*path.glob("index-*"), *beside):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _DAY:
                shutil.rmtree(left, ignore_errors=True)


def _create(path: Path, lenders: Sequence[Path]) -> None:
    """Make the folder under another name first; of two who do so, the first wins."""
    scratch = _sibling(path, _NEW)
    try:
        scratch.mkdir(parents=True, mode=0o700)
        objects.create(scratch, lenders)
        with suppress(OSError):
            scratch.rename(path)
    except OSError as error:
        msg = f"the cache {path} can't be created: {error.strerror}"
        raise Failed(msg) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _sibling(path: Path, kind: str) -> Path:
    return path.with_name(f"{path.name}.{kind}-{secrets.token_hex(6)}")
