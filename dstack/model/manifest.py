"""A manifest: one artifact set, every file with mode, size, digest or symlink target (DESIGN section 10)."""

import hashlib
from enum import StrEnum

from dstack.model.codec import Value, decode, encode

MANIFEST_LIMIT = 512 * 1024 * 1024


class Kind(StrEnum):
    """What stands at a path."""

    FILE = "file"
    LINK = "link"
    FOLDER = "folder"


class Entry(Value, frozen=True, kw_only=True):
    """One path of a set.

    `path` is `/`-separated, relative to the repository's root, or absolute in a container. Where it is not UTF-8, `raw`
    holds the exact bytes and `path` is for display. `target` likewise (`raw_target`). `mode` holds the permission bits.
    """

    path: str
    kind: Kind = Kind.FILE
    mode: int = 0o644
    size: int = 0
    sha256: str = ""
    target: str = ""
    raw: bytes | None = None
    raw_target: bytes | None = None


class Manifest(Value, frozen=True, kw_only=True):
    """`artifacts` are the declared paths, from the repository's root or absolute; `entries` is sorted by path."""

    version: int = 1
    artifacts: tuple[str, ...]
    entries: tuple[Entry, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)


def to_bytes(manifest: Manifest) -> bytes:
    """The content of the manifest's object in the store."""
    return encode(manifest)


def from_bytes(data: bytes) -> Manifest:
    """Parse a manifest. Raises Invalid."""
    return decode(data, Manifest, "manifest", limit=MANIFEST_LIMIT)


def digest(data: bytes) -> str:
    """The SHA-256 by which objects and manifests are named."""
    return hashlib.sha256(data).hexdigest()
