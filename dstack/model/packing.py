"""Which small files of a set travel together, in a pack: cut by content, so that a change moves one pack."""

MIB = 1024 * 1024

# What is larger is an object of its own.
SMALL = MIB
# A pack ends behind a file whose digest says so, but not before LEAST, and at the latest at MOST.
LEAST = MIB
MOST = 4 * MIB
# The digests end a pack once in so many bytes.
SPREAD = 2 * MIB
# A file weighs at least this much, so that no pack holds more than some thousands.
GRAIN = 1024


def weight(size: int) -> int:
    """What a file of `size` bytes adds to its pack."""
    return max(size, GRAIN)


def ends(total: int, sha256: str, size: int) -> bool:
    """Whether a pack of this weight, its last file included, ends behind that file."""
    return total >= MOST or (total >= LEAST and int(sha256[:8], 16) * SPREAD < weight(size) << 32)
