"""A state remote with snapshots for the tests of the runner's code, and what a checkout is compared by."""

import os
import stat
from pathlib import Path

from dstack.model import refs
from dstack.model.refs import RunKey
from tests.repositories import bare, sh

KEY = RunKey("fast-rabbit-1", "5ab98f2089ae")


class Remote:
    """A state remote, and a work tree from which snapshots get there."""

    def __init__(self, folder: Path) -> None:
        self.path = bare(folder / "remote.git")
        self.work = folder / "work"
        self.work.mkdir()
        sh(self.work, "init", "--quiet", "--initial-branch=main")

    def snapshot(self, key: RunKey = KEY) -> str:
        """The work tree as it stands, under the run's snapshot ref."""
        sh(self.work, "add", "--all", "--force")
        sh(self.work, "commit", "--quiet", "--allow-empty", "-m", "snapshot")
        sh(self.work, "push", "--quiet", str(self.path), f"+HEAD:{refs.snapshot(key)}")
        return sh(self.work, "rev-parse", "HEAD")


def fill(folder: Path) -> None:
    """Files of all kinds."""
    (folder / "src" / "deep").mkdir(parents=True)
    (folder / "train.py").write_text("print('hello')\n")
    (folder / "src/deep/model.bin").write_bytes(bytes(range(256)) * 40)
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("src/deep")
    (folder / "dangling").symlink_to("/nowhere/at all")
    (folder / "-dash\nnewline").write_text("odd\n")
    (folder / os.fsdecode(b"not-utf8-\xff")).write_text("odder\n")
    (folder / ".gitignore").write_text("ignored\n")
    (folder / "ignored").write_text("in the snapshot all the same\n")


Tree = dict[str, tuple[int, bytes]]


def content(folder: Path) -> Tree:
    """Every path with its mode and bytes; folders too."""
    found: Tree = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        data = os.fsencode(path.readlink()) if path.is_symlink() else b"" if path.is_dir() else path.read_bytes()
        found[str(path.relative_to(folder))] = (mode if not path.is_symlink() else stat.S_IFLNK, data)
    return {name: value for name, value in found.items() if name.partition("/")[0] != ".git"}
