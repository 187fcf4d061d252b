"""Artifact sets: saved from a job's folder, put in place for another job, listed and downloaded for people."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from dstack.model import keys
from dstack.model import manifest as manifests
from dstack.model.errors import Failed, Invalid
from dstack.model.manifest import MANIFEST_LIMIT, Entry, Kind, Manifest, Pack
from dstack.store import paths
from dstack.store.fetching import Missing
from dstack.store.placing import DiskFull, Step, put_in_place
from dstack.store.saving import Incomplete, Saved, save
from dstack.store.scanning import Tree
from dstack.store.store import Store
from dstack.store.tally import Progress, Tally, silent

__all__ = [
    "DiskFull",
    "Incomplete",
    "Listed",
    "Missing",
    "Progress",
    "Saved",
    "Tree",
    "download",
    "listing",
    "load",
    "matching",
    "place",
    "save",
]

_Locate = Callable[[str], tuple[Path, tuple[bytes, ...]]]
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A file or link for `dstack artifacts`: `file` is its path within `artifact` (its name, if it is the artifact).

    `path` is the path filters are compared with. `target` is set for links alone.
    """

    artifact: str
    file: str
    path: str
    size: int
    mode: int
    sha256: str
    target: str


def load(store: Store, digest: str) -> Manifest:
    """The manifest of this digest. Raises Missing where it is gone or damaged, Invalid where the digest is none."""
    if not _SHA256.fullmatch(digest):
        msg = f"{digest[:80]!r} is not the digest of a manifest"
        raise Invalid(msg)
    data = store.get(keys.manifest(digest), limit=MANIFEST_LIMIT)
    if data is None:
        what = f"the store {store.url} no longer has the artifact set {digest[:12]}…"
        msg = f"{what}: `dstack prune` has freed it, or somebody else"
        raise Missing(msg)
    if manifests.digest(data) != digest:
        msg = f"the artifact set {digest[:12]}… in the store {store.url} is damaged"
        raise Missing(msg)
    return manifests.from_bytes(data)


def place(store: Store, digest: str, tree: Tree, *, under: str = "", progress: Progress = silent) -> Manifest:
    """Put a set in place in a job's tree; with `under`, each artifact's content in `<artifact>/<under>/`.

    Files that stand there are replaced, unless they are the very same. Raises Invalid for a manifest that would leave
    the tree (nothing is then written), Missing (nothing more is written), DiskFull, Failed. Whole again when called
    again. `progress` as in `save`.
    """
    manifest = load(store, digest)
    _run(store, list(_steps(manifest, _in_tree(tree), under)), manifest.packs, progress)
    return manifest


def listing(manifest: Manifest) -> tuple[Listed, ...]:
    """The files and links of a set, by path."""
    return tuple(_listed(entry, manifest) for entry in manifest.entries if entry.kind is not Kind.FOLDER)


def download(
    store: Store, manifest: Manifest, output: Path, *, only: tuple[str, ...] = (), progress: Progress = silent
) -> tuple[Listed, ...]:
    """Put a set, or what matches a filter, into the folder `output`, which is created; absolute paths go below it too.

    A filter is a path of the set, a folder in it, or a glob. Returns what was written. Raises as `place`.
    """
    chosen = matching(manifest, only)
    steps = list(_steps(chosen, lambda artifact: (output, _names(artifact)), ""))
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"can't create the folder {output}: {error.strerror}"
        raise Failed(msg) from error
    _run(store, steps, manifest.packs, progress)
    return listing(chosen)


def _run(store: Store, steps: list[Step], packs: tuple[Pack, ...], progress: Progress) -> None:
    put_in_place(store, steps, packs, Tally(sum(step.entry.size for step in steps), progress))


def _in_tree(tree: Tree) -> _Locate:
    def locate(artifact: str) -> tuple[Path, tuple[bytes, ...]]:
        if not artifact.startswith("/"):
            return tree.root, _names(artifact)
        place = tree.absolute(artifact) if _names(artifact) else None
        if place is None:
            msg = f"the artifact {artifact!r} is an absolute path, which can't be offered to this job"
            raise Invalid(msg)
        return place.parent, (os.fsencode(place.name),)

    return locate


def _steps(manifest: Manifest, locate: _Locate, under: str) -> Iterator[Step]:
    """Where each entry goes. Raises Invalid, for all of them before any is touched."""
    between = (paths.as_folder_name(under),) if under else ()
    for entry in manifest.entries:
        path = paths.path_of(entry)
        artifact = paths.artifact_of(path, manifest.artifacts)
        if artifact is None:
            msg = f"the manifest holds {paths.show(path)}, which belongs to none of its artifacts"
            raise Invalid(msg)
        inside = paths.names(path)[len(_names(artifact)) :]
        if between and not inside and entry.kind is not Kind.FOLDER:
            inside = _names(artifact)[-1:]  # an artifact that is a file keeps its name in the folder
        base, first = locate(artifact)
        if not (*first, *inside):
            msg = "the manifest holds an entry for the folder it is put into itself"
            raise Invalid(msg)
        yield Step(entry=entry, base=base, parts=(*first, *between, *inside))


def _names(artifact: str) -> tuple[bytes, ...]:
    return paths.names(paths.exact(artifact, None))


def _listed(entry: Entry, manifest: Manifest) -> Listed:
    artifact = paths.artifact_of(paths.path_of(entry), manifest.artifacts) or ""
    inside = entry.path if artifact == paths.HERE else entry.path.removeprefix(artifact).lstrip("/")
    return Listed(
        artifact=artifact,
        file=inside or artifact.rpartition("/")[2],
        path=entry.path,
        size=entry.size,
        mode=entry.mode,
        sha256=entry.sha256,
        target=entry.target,
    )


def matching(manifest: Manifest, only: tuple[str, ...]) -> Manifest:
    """The part of a set that matches one of the filters of `download`; all of it where there are none."""
    chosen = (entry for entry in manifest.entries if not only or any(_matches(entry.path, one) for one in only))
    return msgspec.structs.replace(manifest, entries=tuple(chosen))


def _matches(path: str, pattern: str) -> bool:
    wanted = pattern.removeprefix("./").rstrip("/")
    return wanted in ("", paths.HERE) or path == wanted or path.startswith(f"{wanted}/") or fnmatchcase(path, wanted)
