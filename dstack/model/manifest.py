"""A manifest: one artifact set, every file with mode, size, digest or symlink target (DESIGN section 10)."""

import hashlib
import re
from enum import StrEnum

from dstack.model import keys
from dstack.model.codec import Value, decode, encode
from dstack.model.errors import Invalid

MANIFEST_LIMIT = 512 * 1024 * 1024
# The first version has no packs; a set that needs none is still written so.
PLAIN, PACKED = 1, 2
# A file in a pack is read at once.
MEMBER_LIMIT = 8 * 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Kind(StrEnum):
    """What stands at a path."""

    FILE = "file"
    LINK = "link"
    FOLDER = "folder"


class Entry(Value, frozen=True, kw_only=True, gc=False):
    """One path of a set.

    `path` is `/`-separated, relative to the repository's root, or absolute in a container. Where it is not UTF-8, `raw`
    holds the exact bytes and `path` is for display. `target` likewise (`raw_target`). `mode` holds the permission bits.
    A file's bytes are the object of its digest or, where `pack` is set, `size` bytes from `offset` on in that pack.
    """

    path: str
    kind: Kind = Kind.FILE
    mode: int = 0o644
    size: int = 0
    sha256: str = ""
    target: str = ""
    raw: bytes | None = None
    raw_target: bytes | None = None
    pack: int | None = None
    offset: int = 0


class Pack(Value, frozen=True, kw_only=True):
    """An object that holds the bytes of many small files."""

    sha256: str
    size: int


class Manifest(Value, frozen=True, kw_only=True):
    """`artifacts` are the declared paths, from the repository's root or absolute; `entries` is sorted by path.

    An entry's `pack` counts in `packs`, from 0.
    """

    version: int = PLAIN
    artifacts: tuple[str, ...]
    entries: tuple[Entry, ...] = ()
    packs: tuple[Pack, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)

    def objects(self) -> dict[str, int]:
        """The keys of all objects that hold its files, with their sizes."""
        packs = {keys.content(pack.sha256): pack.size for pack in self.packs}
        alone = (entry for entry in self.entries if entry.kind is Kind.FILE and entry.pack is None)
        return packs | {keys.content(entry.sha256): entry.size for entry in alone}


def to_bytes(manifest: Manifest) -> bytes:
    """The content of the manifest's object in the store."""
    return encode(manifest)


def from_bytes(data: bytes) -> Manifest:
    """Parse a manifest. Raises Invalid."""
    manifest = decode(data, Manifest, "manifest", limit=MANIFEST_LIMIT)
    if manifest.version > PACKED:
        msg = f"the manifest was made by a later version of dstack (version {manifest.version}): upgrade dstack"
        raise Invalid(msg)
    _check_packs(manifest)
    return manifest


def digest(data: bytes) -> str:
    """The SHA-256 by which objects and manifests are named."""
    return hashlib.sha256(data).hexdigest()


def _check_packs(manifest: Manifest) -> None:
    for pack in manifest.packs:
        if not _SHA256.fullmatch(pack.sha256) or pack.size < 0:
            msg = f"the manifest names a pack that is none: {pack.sha256[:80]!r}"
            raise Invalid(msg)
    for entry in manifest.entries:
        if entry.pack is not None and not _lies_in(entry, manifest.packs):
            msg = f"the manifest holds {entry.path!r} where no pack has it: pack {entry.pack}, offset {entry.offset}"
            raise Invalid(msg)


def _lies_in(entry: Entry, packs: tuple[Pack, ...]) -> bool:
    if entry.kind is not Kind.FILE or entry.pack is None or not 0 <= entry.pack < len(packs):
        return False
    within = 0 <= entry.offset <= entry.offset + entry.size <= packs[entry.pack].size
    return within and 0 <= entry.size <= MEMBER_LIMIT
