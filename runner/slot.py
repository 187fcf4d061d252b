"""One reusable work folder: `tree` (what a job sees, without any `.git`), and beside it git's index and its state."""

import errno
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from dstack.ledger import git, objects
from dstack.model.errors import Failed, Invalid
from dstack.model.job import Reason
from runner.codecache import CodeCache
from runner.executor import StartFailed
from runner.sweep import Sweep, remove, unused

# git then goes by size, inode, and both times: the change time no job can set back.
SETTINGS = (
    "core.bare=false",
    "core.trustCtime=true",
    "core.checkStat=default",
    "core.fileMode=true",
    "core.symlinks=true",
    "core.autocrlf=false",
    "core.untrackedCache=false",
    "core.sparseCheckout=false",
)
LFS = (
    "filter.lfs.smudge=git-lfs smudge -- %f",
    "filter.lfs.process=git-lfs filter-process",
    "filter.lfs.required=true",
)
NO_LFS = ("filter.lfs.smudge=", "filter.lfs.process=", "filter.lfs.required=false")


class Damaged(Exception):
    """git could not make the folder right: the cache or the slot is damaged, or the disk is full."""


class Slot:
    """A slot's folder. `snapshot` is what was last checked out, or part of it; `clean`: nothing else is in the tree."""

    def __init__(self, folder: Path) -> None:
        """Take over what is on disk; anything doubtful counts as not clean."""
        self.folder, self.tree = folder, folder / "tree"
        self._index, self._state = folder / "index", folder / "state"
        word, _, self.snapshot = self._read_state().partition(" ")
        self.clean = word == "clean"

    def fill(self, code: CodeCache, snapshot: str, include: tuple[str, ...] = ()) -> None:
        """Make the tree exactly the snapshot (or what the globs name of it), writing only what differs.

        Raises Damaged, StartFailed.
        """
        clean, self.clean = self.clean, False
        self._write_state("used", snapshot)
        if not self._is_sound():
            self.empty()
        elif not clean:
            self.tidy(code)
        self._git(code, "read-tree", "--reset", "-u", _treeish(code, snapshot, include))
        self.snapshot = snapshot

    def tidy(self, code: CodeCache) -> None:
        """Remove all that git does not track, never following a link. Raises Damaged."""
        self._index.with_name("index.lock").unlink(missing_ok=True)
        tracked = self._git(code, "ls-files", "-z").split(b"\0")[:-1]
        try:
            Sweep(self.tree, tracked).run()
        except OSError as error:
            raise Damaged(str(error)) from error

    def free(self, code: CodeCache) -> None:
        """Make the slot ready for another job. Raises Damaged."""
        if not self._is_sound():
            self.empty()
        self.tidy(code)
        self.clean = True
        self._write_state("clean", self.snapshot)

    def empty(self) -> None:
        """Begin anew: what is in the tree is moved aside and removed as far as we are able to."""
        self.clean, self.snapshot = False, ""
        self._index.unlink(missing_ok=True)
        self._index.with_name("index.lock").unlink(missing_ok=True)
        aside = self.folder / "aside"
        aside.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            self.tree.rename(unused(aside))
        remove(aside)
        self.tree.mkdir()

    def remove(self) -> None:
        """Give the disk space back."""
        self.empty()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_sound(self) -> bool:
        try:
            return stat.S_ISDIR(self.tree.lstat().st_mode) and self._index.exists()
        except FileNotFoundError:
            return False

    def _git(self, code: CodeCache, *args: str) -> bytes:
        context = code.context({"GIT_INDEX_FILE": str(self._index), "GIT_WORK_TREE": str(self.tree)})
        lfs = (*LFS, f"remote.origin.url={lfs_url(code.url)}") if shutil.which("git-lfs") else NO_LFS
        settings = [part for setting in (*SETTINGS, *lfs) for part in ("-c", setting)]
        try:
            result = git.run(context, *settings, *args)
        except Failed as error:
            raise Damaged(str(error)) from error
        if os.strerror(errno.ENOSPC).encode() in result.err:
            msg = "the runner's disk is full: free some space there"
            raise StartFailed(Reason.DISK_FULL, msg)
        if result.status != 0:
            raise Damaged(result.reason or f"git {args[0]} ended with {result.status}")
        return result.out

    def _read_state(self) -> str:
        try:
            return self._state.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def _write_state(self, word: str, snapshot: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self._state.with_name("state.new")
        new.write_text(f"{word} {snapshot}\n", encoding="ascii")
        new.replace(self._state)


def _treeish(code: CodeCache, snapshot: str, include: tuple[str, ...]) -> str:
    try:
        return code.treeish(snapshot, include)
    except (objects.Damaged, Failed) as error:
        raise Damaged(str(error)) from error
    except Invalid as error:
        raise StartFailed(Reason.CHECKOUT, str(error)) from error


def lfs_url(url: str) -> str:
    """The remote as git-lfs wants it: it knows a folder by its URL only."""
    return Path(url).as_uri() if url.startswith("/") else url
