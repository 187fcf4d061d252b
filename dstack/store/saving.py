"""Saves the artifacts of a job: content under its digest, then the manifest, then every object is checked."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from dstack.model import keys
from dstack.model import manifest as manifests
from dstack.model.errors import Failed, Unavailable
from dstack.model.manifest import Entry, Kind, Manifest
from dstack.store import beneath, paths
from dstack.store.scanning import Found, Scan, Tree, scan
from dstack.store.sending import Content, is_fresh, send
from dstack.store.store import Store

# Bytes done, bytes in all (by the sizes found at first).
Progress = Callable[[int, int], None]


def silent(_done: int, _total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A set that is complete in the store. `digest` and `manifest` are None where nothing was declared."""

    digest: str | None = None
    manifest: Manifest | None = None
    warnings: tuple[str, ...] = ()


class Incomplete(Failed):
    """Something declared could not be read. What could be is saved all the same: `saved`."""

    def __init__(self, message: str, saved: Saved) -> None:
        """`saved` lacks what the message names."""
        super().__init__(message)
        self.saved = saved


def save(store: Store, tree: Tree, artifacts: tuple[str, ...], *, progress: Progress = silent) -> Saved:
    """Save the declared paths (relative to the tree's working folder, or absolute in a container) as one set.

    Raises Invalid for a path that leaves the repository, Incomplete, and what the store raises; after Unavailable, call
    again: what has arrived is not sent twice.
    """
    if not artifacts:
        return Saved()
    found = scan(tree, artifacts)
    entries = _Sending(store, found, progress).entries()
    manifest = Manifest(artifacts=found.artifacts, entries=tuple(sorted(entries, key=paths.path_of)))
    digest = _put_manifest(store, manifest)
    saved = Saved(digest=digest, manifest=manifest, warnings=tuple(found.warnings))
    if found.problems:
        msg = f"not all artifacts could be saved: {'; '.join(found.problems[:5])}"
        raise Incomplete(msg, saved)
    return saved


def _put_manifest(store: Store, manifest: Manifest) -> str:
    data = manifests.to_bytes(manifest)
    digest = manifests.digest(data)
    sizes = {keys.content(entry.sha256): entry.size for entry in manifest.entries if entry.kind is Kind.FILE}
    if not is_fresh(store, keys.manifest(digest), len(data)):
        store.put(keys.manifest(digest), data)
    for key, size in (sizes | {keys.manifest(digest): len(data)}).items():
        head = store.head(key)
        if head is None or head.size != size:
            msg = f"the store {store.url} does not hold {key} as it was written ({size} bytes): saving it again"
            raise Unavailable(msg)
    return digest


class _Sending:
    """Turns what was found into entries whose content is in the store."""

    def __init__(self, store: Store, found: Scan, progress: Progress) -> None:
        self._store = store
        self._scan = found
        self._progress = progress
        self._total = sum(one.size for one in found.found)
        self._done = 0

    def entries(self) -> list[Entry]:
        return [entry for found in self._scan.found if (entry := self._entry(found)) is not None]

    def _entry(self, found: Found) -> Entry | None:
        if found.kind is not Kind.FILE:
            return _entry(found, Content("", 0))
        try:
            content = self._content(found)
        except FileNotFoundError:
            self._scan.warnings.append(f"{paths.show(found.path)} went away while it was being saved")
            return None
        except OSError as error:
            self._scan.problems.append(f"{paths.show(found.path)} can't be read: {error.strerror}")
            return None
        return _entry(found, content)

    def _content(self, found: Found) -> Content:
        with beneath.root(found.base) as root, beneath.folder(root, found.parts[:-1]) as parent:
            descriptor = beneath.open_file(parent, found.parts[-1])
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileNotFoundError
            return send(self._store, descriptor, progress=self._add)
        finally:
            os.close(descriptor)

    def _add(self, size: int) -> None:
        self._done += size
        self._progress(self._done, self._total)


def _entry(found: Found, content: Content) -> Entry:
    path, raw = paths.written(found.path)
    target, raw_target = paths.written(found.target)
    return Entry(
        path=path,
        raw=raw,
        kind=found.kind,
        mode=found.mode,
        size=content.size,
        sha256=content.sha256,
        target=target,
        raw_target=raw_target,
    )
