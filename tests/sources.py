"""Sources of bytes for stores: whole ones, endless zeros, and one that breaks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bytes:
    """What is in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, start: int, size: int) -> bytes:
        return self.data[start : start + size]


@dataclass(frozen=True)
class Zeros:
    """So many, without holding them."""

    size: int

    def read(self, _start: int, size: int) -> bytes:
        return bytes(size)


@dataclass(frozen=True)
class Broken:
    """Fails behind its first 3 MiB."""

    size: int = 20 * 1024 * 1024

    def read(self, start: int, size: int) -> bytes:
        if start + size > 3 * 1024 * 1024:
            msg = "the source went away"
            raise OSError(msg)
        return bytes(size)
