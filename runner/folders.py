"""The folder of each attempt in hand, and which checkout it has: found again after a crash, from the disk alone."""

import os
import shutil
from pathlib import Path
from typing import Protocol

from dstack.model.refs import RunKey

TREE = "tree"


class Trees(Protocol):
    """Hands out checkouts and takes them back (`runner.workspace`)."""

    def claim(self, tree: Path) -> None:
        """Leave this one to the attempt that had it before a restart."""
        ...

    def checkout(self, key: RunKey, snapshot: str, include: tuple[str, ...]) -> Path:
        """A folder with the snapshot (of it what globs name) and nothing else. Raises StartFailed, Unavailable."""
        ...

    def release(self, tree: Path) -> None:
        """Take it back."""
        ...

    def trim(self) -> None:
        """Remove what nobody has."""
        ...


class Folders:
    """Implements `runner.preparing.Workspaces` below one folder."""

    def __init__(self, folder: Path, trees: Trees) -> None:
        """Claims the checkouts of all attempts that are there."""
        self._folder = folder
        self._trees = trees
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for key in self.keys():
            if (self.folder(key) / TREE).exists():
                trees.claim(self.tree(key))

    def folder(self, key: str) -> Path:
        """See Workspaces."""
        return self._folder / key

    def tree(self, key: str) -> Path:
        """See Workspaces. Before it is checked out: a folder that doesn't exist."""
        try:
            return Path(os.fsdecode((self.folder(key) / TREE).read_bytes()))
        except FileNotFoundError:
            return self.folder(key) / "nothing"

    def check_out(self, key: str, run: RunKey, snapshot: str, include: tuple[str, ...]) -> None:
        """See Workspaces."""
        folder = self.folder(key)
        folder.mkdir(exist_ok=True, mode=0o700)
        if (folder / TREE).exists():
            self._release(key)
        tree = self._trees.checkout(run, snapshot, include)
        scratch = folder / f"{TREE}.new"
        scratch.write_bytes(os.fsencode(tree))
        scratch.replace(folder / TREE)

    def remove(self, key: str) -> None:
        """See Workspaces."""
        if (self.folder(key) / TREE).exists():
            self._release(key)
        shutil.rmtree(self.folder(key), ignore_errors=True)

    def trim(self) -> None:
        """See Workspaces."""
        self._trees.trim()

    def keys(self) -> tuple[str, ...]:
        """See Workspaces."""
        return tuple(sorted(path.name for path in self._folder.iterdir() if path.is_dir()))

    def _release(self, key: str) -> None:
        """First forget whose it is: a checkout that nobody claims is cleaned before it is used."""
        tree = self.tree(key)
        (self.folder(key) / TREE).unlink()
        self._trees.release(tree)
