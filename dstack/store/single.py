"""Reads one small file out of an artifact set, into memory."""

import hashlib
from contextlib import closing

from dstack.model.errors import Invalid
from dstack.model.manifest import Kind, Manifest
from dstack.store import fetching
from dstack.store.fetching import Missing, Span
from dstack.store.store import Store


def read_file(store: Store, manifest: Manifest, path: str, *, limit: int) -> bytes | None:
    """The bytes of the file at `path`, verified; None where the set has none. Raises Invalid, Missing, Unavailable."""
    entry = next((entry for entry in manifest.entries if entry.path == path and entry.raw is None), None)
    if entry is None:
        return None
    if entry.kind is not Kind.FILE:
        msg = f"it is a {entry.kind}, and no plain file"
        raise Invalid(msg)
    if entry.size > limit:
        msg = f"it has {entry.size} bytes; at most {limit} are read"
        raise Invalid(msg)
    if entry.pack is None:
        with fetching.opened(store, entry.sha256, path, None) as source:
            data = source.read(entry.size + 1)
    else:
        pack = manifest.packs[entry.pack].sha256
        with closing(fetching.members(store, pack, path, [Span(entry.offset, entry.size)])) as found:
            data = next(found)
    if len(data) != entry.size or hashlib.sha256(data).hexdigest() != entry.sha256:
        msg = f"the content of {path} in the store {store.url} is damaged: it is not what was saved"
        raise Missing(msg)
    return data
