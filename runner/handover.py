"""A checkout changing hands between us and a container's user, who is another than we are."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

ROOT_NAMES = ("", "0", "root")


def open_to_all(tree: Path) -> None:
    """Let any user write in the tree: an image may name one of its own, who has no rights on our files."""
    for path in (tree, *paths(tree)):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode):
            path.chmod(stat.S_IMODE(mode) | (0o777 if stat.S_ISDIR(mode) else 0o666))


def is_root(user: str) -> bool:
    """Whether an image's user (`NAME`, `ID`, either with `:GROUP`) has all rights anyway."""
    return user.partition(":")[0] in ROOT_NAMES


def foreign(*trees: Path) -> list[Path]:
    """Those of the trees in which something is another user's."""
    mine = os.geteuid()
    return [tree for tree in trees if any(_is_foreign(path, mine) for path in paths(tree))]


def paths(tree: Path) -> Iterator[Path]:
    """All paths below the tree that we may see, following no link."""
    for folder, folders, files in os.walk(tree):
        yield from (Path(folder, name) for name in (*folders, *files))


def _is_foreign(path: Path, mine: int) -> bool:
    """Another's, or a folder that we can't look into, which may hold what is."""
    status = path.lstat()
    closed = stat.S_ISDIR(status.st_mode) and not os.access(path, os.R_OK | os.X_OK, follow_symlinks=False)
    return status.st_uid != mine or closed
