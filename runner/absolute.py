"""Artifacts at absolute paths of a container: where they lie on this machine, on their way in and out."""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import quote

from dstack.store import paths

INPUTS, OUTPUTS = "inputs", "outputs"
LONGEST_NAME = 200


@runtime_checkable
class Exports(Protocol):
    """An executor whose jobs have a file system of their own."""

    def export(self, key: str, path: str, target: Path) -> bool:
        """Copy what stands at an absolute path to `target`; False where nothing does. Raises Invalid, Unavailable."""
        ...


def inputs_in(folder: Path) -> Callable[[str], Path | None]:
    """Where inputs are put, in the attempt's folder; they are mounted from there."""
    base = folder / INPUTS
    base.mkdir(parents=True, exist_ok=True)
    return lambda path: base / _name(path)


def mounts(folder: Path, artifacts: Iterable[str]) -> Mapping[str, Path]:
    """What of these absolute artifacts was put there, by its path in the container.

    Not what is a symbolic link itself: an engine would follow it on this machine.
    """
    places = {path: folder / INPUTS / _name(path) for path in artifacts if path.startswith("/")}
    return {path: place for path, place in places.items() if place.exists() and not place.is_symlink()}


def export_all(executor: Exports, key: str, folder: Path, declared: Iterable[str]) -> Callable[[str], Path | None]:
    """Copy absolute artifacts into the attempt's folder; where each lies then. Raises Invalid, Unavailable, OSError."""
    base = folder / OUTPUTS
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir(parents=True)
    try:
        for path in {paths.resolve(paths.HERE, path) for path in declared if path.startswith("/")}:
            executor.export(key, path, base / _name(path))
    except OSError:
        # On a full disk it is tried again; until then others may need what this took.
        shutil.rmtree(base, ignore_errors=True)
        raise
    return lambda path: base / _name(path)


def _name(path: str) -> str:
    """One file name for a path."""
    name = quote(path, safe="")
    return name if len(name) <= LONGEST_NAME else hashlib.sha256(path.encode()).hexdigest()
