"""Saves the artifacts of a job: content under its digest, then the manifest, then every object is checked."""

from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path

from dstack.model import keys
from dstack.model import manifest as manifests
from dstack.model.errors import Failed, Unavailable
from dstack.model.manifest import PACKED, PLAIN, Entry, Kind, Manifest, Pack
from dstack.store import deleting, paths
from dstack.store.digests import Digests
from dstack.store.packer import Where
from dstack.store.reading import Content
from dstack.store.scanning import Found, Scan, Tree, scan
from dstack.store.sending import Sender
from dstack.store.store import Store
from dstack.store.tally import Progress, Tally, silent
from dstack.store.uploading import Outcome, Upload
from dstack.store.workers import Workers


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


def save(
    store: Store, tree: Tree, artifacts: tuple[str, ...], *, progress: Progress = silent, memory: Path | None = None
) -> Saved:
    """Save the declared paths (relative to the tree's working folder, or absolute in a container) as one set.

    `progress` is called by several threads, one at a time; what it raises ends the save. `memory` is a file to keep the
    digests in: then what has not changed is not read again the next time.
    Raises Invalid for a path that leaves the repository, Incomplete, and what the store raises; after Unavailable, call
    again: what has arrived is not sent twice.
    """
    if not artifacts:
        return Saved()
    found = scan(tree, artifacts)
    sender = Sender(store)
    outcome = _send(sender, found, store.width, Digests(memory), progress)
    manifest = _manifest(found, outcome)
    digest = _put_manifest(store, sender, manifest)
    saved = Saved(digest=digest, manifest=manifest, warnings=tuple(found.warnings))
    if found.problems:
        msg = f"not all artifacts could be saved: {'; '.join(found.problems[:5])}"
        raise Incomplete(msg, saved)
    return saved


def _send(sender: Sender, found: Scan, width: int, digests: Digests, progress: Progress) -> Outcome:
    outcome, whole = Outcome(), False
    found.found.sort(key=attrgetter("path"))
    files = [one for one in found.found if one.kind is Kind.FILE]
    tally = Tally(sum(one.size for one in files), progress)
    try:
        Upload(sender=sender, digests=digests, tally=tally, outcome=outcome).send(files, width)
        whole = True
    finally:
        digests.keep(whole=whole)
    found.warnings += [f"{paths.show(path)} went away while it was being saved" for path in sorted(outcome.gone)]
    found.problems += [f"{paths.show(path)} can't be read: {why}" for path, why in sorted(outcome.unread.items())]
    return outcome


def _manifest(found: Scan, outcome: Outcome) -> Manifest:
    """Packs are counted as the paths meet them."""
    packs: dict[Pack, int] = {}
    entries = list[Entry]()
    for one in found.found:
        where = outcome.places.get(one.path)
        if one.kind is not Kind.FILE:
            entries.append(_entry(one, Where(Content("", 0)), None))
        elif where is not None:
            entries.append(_entry(one, where, packs.setdefault(where.pack, len(packs)) if where.pack else None))
    version = PACKED if packs else PLAIN
    return Manifest(version=version, artifacts=found.artifacts, entries=tuple(entries), packs=tuple(packs))


def _put_manifest(store: Store, sender: Sender, manifest: Manifest) -> str:
    data = manifests.to_bytes(manifest)
    digest = manifests.digest(data)
    sender.put(keys.manifest(digest), data)
    if sender.replaces:
        deleting.settle(store)
    with Workers(store.width) as workers:
        for key, size in sender.unproven(manifest.objects() | {keys.manifest(digest): len(data)}).items():
            workers.start(partial(_check, store, key, size))
    return digest


def _check(store: Store, key: str, size: int) -> None:
    head = store.head(key)
    if head is None or head.size != size:
        msg = f"the store {store.url} does not hold {key} as it was written ({size} bytes): saving it again"
        raise Unavailable(msg)


def _entry(found: Found, where: Where, pack: int | None) -> Entry:
    path, raw = paths.written(found.path)
    target, raw_target = paths.written(found.target)
    return Entry(
        path=path,
        raw=raw,
        kind=found.kind,
        mode=found.mode,
        size=where.content.size,
        sha256=where.content.sha256,
        target=target,
        raw_target=raw_target,
        pack=pack,
        offset=where.offset,
    )
