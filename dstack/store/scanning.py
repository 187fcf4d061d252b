"""Finds what stands at the declared paths of a job, without opening a file and without following a symbolic link."""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from dstack.model.manifest import Kind
from dstack.store import beneath, paths
from dstack.store.digests import Stamp, stamp_of

MAX_DEPTH = 200
# What a killed `place` may leave beside the file it was writing.
PART = b".dstack-part-"


def nowhere(_path: str) -> Path | None:
    """No absolute path of a job is reachable from this machine."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Where a job's files are on this machine.

    `root` is the repository's root. `working_dir` is relative to it. `absolute` gives the place on this machine of a
    declared absolute path (a path in a container), or None; what it gives is trusted, what lies beneath is not.
    """

    root: Path
    working_dir: str = paths.HERE
    absolute: Callable[[str], Path | None] = nowhere


class Found(msgspec.Struct, frozen=True, gc=False):
    """A path: its name in the manifest, and where it is: `parts` beneath the folder `base`. Files have a `stamp`.

    There may be very many: the garbage collector need not look at them.
    """

    path: bytes
    base: Path
    parts: tuple[bytes, ...]
    kind: Kind
    mode: int
    size: int = 0
    target: bytes = b""
    stamp: Stamp | None = None


@dataclass(slots=True)
class Scan:
    """What was found. `warnings` are for the user to see; `problems` mean that something declared can't be saved."""

    artifacts: tuple[str, ...]
    found: list[Found] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def scan(tree: Tree, declared: tuple[str, ...]) -> Scan:
    """Walk the declared paths. Raises Invalid where one leaves the repository."""
    artifacts = tuple(dict.fromkeys(paths.resolve(tree.working_dir, path) for path in declared))
    result = Scan(artifacts)
    for artifact in paths.outermost(artifacts):
        _Walk(result, artifact).start(tree)
    return result


class _Walk:
    """Through one artifact."""

    def __init__(self, result: Scan, artifact: str) -> None:
        self._result = result
        self._artifact = artifact
        self._pending: list[Found] = []
        self._seen = 0

    def start(self, tree: Tree) -> None:
        if self._artifact.startswith("/"):
            place = tree.absolute(self._artifact)
            if place is None:
                self._warn("is an absolute path that the runner can't reach from outside the job; nothing was saved")
                return
            self._walk_or_say(place.parent, (os.fsencode(place.name),))
        else:
            self._walk_or_say(tree.root, paths.names(self._artifact.encode()))

    def _walk_or_say(self, base: Path, parts: tuple[bytes, ...]) -> None:
        try:
            self._walk(base, parts)
        except FileNotFoundError:
            self._warn("does not exist; nothing was saved")
        except NotADirectoryError:
            self._warn("leads through a symbolic link or a file; nothing was saved")
        except OSError as error:
            self._result.problems.append(f"artifact {self._artifact!r} can't be read: {error.strerror}")

    def _walk(self, base: Path, parts: tuple[bytes, ...]) -> None:
        with beneath.root(base) as root:
            self._first(root, base, parts)
            is_folder = bool(self._pending)
            while self._pending:
                folder = self._pending.pop()
                try:
                    self._inside(root, folder)
                except FileNotFoundError:
                    # It went away since it was listed: a save while the job runs.
                    continue
                except OSError as error:
                    self._result.problems.append(f"folder {paths.show(folder.path)} can't be read: {error.strerror}")
        if is_folder and not self._seen:
            self._warn("is an empty folder")

    def _first(self, root: int, base: Path, parts: tuple[bytes, ...]) -> None:
        path = self._artifact.encode()
        if not parts:
            self._pending.append(Found(path=path, base=base, parts=(), kind=Kind.FOLDER, mode=0))
            return
        with beneath.folder(root, parts[:-1]) as parent:
            about = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
            found = _found(parent, about, path, base, parts)
        if found is not None and found.kind is Kind.LINK:
            self._warn(f"is a symbolic link to {paths.show(found.target)}; the link was saved, not what it points to")
        self._add(found, path)

    def _inside(self, root: int, folder: Found) -> None:
        with beneath.folder(root, folder.parts) as descriptor:
            for name, entry in _entries(descriptor):
                self._seen += 1
                path = folder.path + b"/" + name if folder.parts else name
                with suppress(FileNotFoundError):
                    about = entry.stat(follow_symlinks=False)
                    self._add(_found(descriptor, about, path, folder.base, (*folder.parts, name)), path)

    def _add(self, found: Found | None, path: bytes) -> None:
        if found is None:
            self._result.warnings.append(f"{paths.show(path)} is a socket, pipe or device; it was not saved")
        elif len(found.parts) > MAX_DEPTH:
            self._result.problems.append(f"{paths.show(path)} lies more than {MAX_DEPTH} folders deep")
        else:
            self._result.found.append(found)
            if found.kind is Kind.FOLDER:
                self._pending.append(found)

    def _warn(self, text: str) -> None:
        self._result.warnings.append(f"artifact {self._artifact!r} {text}")


def _entries(folder: int) -> list[tuple[bytes, os.DirEntry[str]]]:
    with os.scandir(folder) as entries:
        named = {os.fsencode(entry.name): entry for entry in entries}
    return [(name, named[name]) for name in sorted(named) if not name.startswith(PART)]


def _found(parent: int, about: os.stat_result, path: bytes, base: Path, parts: tuple[bytes, ...]) -> Found | None:
    """None where it is of a kind that can't be saved."""
    mode = stat.S_IMODE(about.st_mode) & 0o777
    if stat.S_ISREG(about.st_mode):
        return Found(path, base, parts, Kind.FILE, mode, about.st_size, stamp=stamp_of(about))
    if stat.S_ISDIR(about.st_mode):
        return Found(path, base, parts, Kind.FOLDER, mode)
    if stat.S_ISLNK(about.st_mode):
        return Found(path, base, parts, Kind.LINK, 0o777, target=os.readlink(parts[-1], dir_fd=parent))
    return None
