"""Many blobs at once, as one pack: writing 10,000 files of an object each would take seconds."""

import hashlib
import zlib
from collections.abc import Iterable
from pathlib import Path

from dstack.ledger import git
from dstack.ledger.git import Context

_BLOB = 3
_FAST = 1


def write_pack(repository: Path, blobs: Iterable[bytes]) -> None:
    """Add these blobs, all different, to a bare repository. Raises Failed."""
    git.output(Context(folder=repository), "index-pack", "--stdin", stdin=pack(list(blobs)))


def pack(blobs: list[bytes]) -> bytes:
    """A pack of whole blobs. Format: gitformat-pack(5)."""
    parts = [b"PACK", (2).to_bytes(4, "big"), len(blobs).to_bytes(4, "big")]
    for blob in blobs:
        parts += [_header(len(blob)), zlib.compress(blob, _FAST)]
    body = b"".join(parts)
    return body + hashlib.sha1(body, usedforsecurity=False).digest()


def _header(size: int) -> bytes:
    """Type and size: 4 bits of the size beside the type, then 7 in each byte, lowest first."""
    first, size = _BLOB << 4 | size & 0x0F, size >> 4
    data = bytearray()
    while size:
        data.append(first | 0x80)
        first, size = size & 0x7F, size >> 7
    data.append(first)
    return bytes(data)
