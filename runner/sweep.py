"""Removing what jobs left behind: folders nobody may enter, links (never followed), pipes, repositories."""

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path


class Sweep:
    """One sweep of a work folder. `tracked` are the paths git knows, relative to it.

    `git clean` won't do: it leaves pipes, sockets, and a repository at the top. And git compares times by the second:
    a mode changed within a second of the checkout is seen by nobody but us.
    """

    def __init__(self, top: Path, tracked: list[bytes]) -> None:
        """Prepare to sweep `top`."""
        self._top, self._tracked = os.fsencode(top), frozenset(tracked)
        self._folders = frozenset(folder for path in tracked for folder in parents(path)) | {b""}
        umask = current_umask()
        self._folder_mode, self._modes = 0o777 & ~umask, (0o666 & ~umask, 0o777 & ~umask)

    def run(self) -> None:
        """Leave only tracked files of ordinary modes, and the folders that lead to them. Raises OSError."""
        waiting = [b""]
        while waiting:
            folder = waiting.pop()
            open_folder(os.path.join(self._top, folder), self._folder_mode)
            with os.scandir(os.path.join(self._top, folder)) as entries:
                for entry in entries:
                    path = os.path.join(folder, entry.name)
                    if path in self._folders and entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
                    elif path not in self._tracked or not self._is_ordinary(entry):
                        remove_entry(entry)

    def _is_ordinary(self, entry: os.DirEntry[bytes]) -> bool:
        mode = entry.stat(follow_symlinks=False).st_mode
        return stat.S_ISLNK(mode) or (stat.S_ISREG(mode) and stat.S_IMODE(mode) in self._modes)


def parents(path: bytes) -> list[bytes]:
    """The folders above a relative path."""
    parts = path.split(b"/")
    return [b"/".join(parts[:length]) for length in range(1, len(parts))]


def current_umask() -> int:
    """The process's umask, read without changing it for other threads."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return next(int(line.split()[1], 8) for line in status.splitlines() if line.startswith("Umask:"))


def remove(folder: Path) -> None:
    """Remove a folder as far as we are able to."""
    open_folders(os.fsencode(folder))
    shutil.rmtree(folder, ignore_errors=True)


def unused(folder: Path) -> Path:
    """A name in `folder` that nothing has."""
    taken = {path.name for path in folder.iterdir()}
    return folder / next(name for number in range(len(taken) + 1) if (name := str(number)) not in taken)


def remove_entry(entry: os.DirEntry[bytes]) -> None:
    """Remove what the entry names. Raises OSError."""
    if entry.is_dir(follow_symlinks=False):
        open_folders(entry.path)
        shutil.rmtree(entry.path)
    else:
        os.unlink(entry.path)


def open_folders(top: bytes) -> None:
    """Give us every right on the folders from `top` down, so that what is in them can be seen and removed."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        open_folder(folder, stat.S_IRWXU)
        with suppress(PermissionError), os.scandir(folder) as entries:
            waiting.extend(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))


def open_folder(folder: bytes, mode: int) -> None:
    """Give a folder this mode, where it is ours."""
    with suppress(PermissionError):
        if stat.S_IMODE(os.lstat(folder).st_mode) != mode:
            os.chmod(folder, mode)
