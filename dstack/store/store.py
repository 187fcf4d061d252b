"""What a store must do. Implementations: a folder, memory, S3. Everything above knows this Protocol only."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import BinaryIO, NamedTuple, Protocol, runtime_checkable


class Head(NamedTuple):
    """What a store says of an object: `size` in bytes, `modified` by the store's own clock.

    `version` changes with the content; empty where the store has no such word for it.
    """

    key: str
    size: int
    modified: datetime
    version: str = ""


# Told how many more bytes have arrived; from any thread.
Sent = Callable[[int], None]


def unwatched(_size: int) -> None:
    """Bytes that nobody counts."""


class Source(Protocol):
    """Bytes of known length, read in any order and by several threads at once."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    def read(self, start: int, size: int) -> bytes:
        """Exactly these; raises where they can't be had."""
        ...


class Store(Protocol):
    """Bytes by key. Keys are `/`-separated names without `.`, `..`, empty or odd parts; anything else raises Invalid.

    Every method may raise Unavailable (away for now) or Failed (no rights, full disk).
    """

    url: str
    # How many transfers at once pay off.
    width: int

    def put(self, key: str, data: bytes | Source, *, if_absent: bool = False, sent: Sent = unwatched) -> bool:
        """Store whole or not at all. False where `if_absent` and the key exists already (nothing is written).

        What the source or `sent` raises passes through, and nothing is stored.
        """
        ...

    def get(self, key: str, *, limit: int) -> bytes | None:
        """The whole object; None where there is none. Raises Invalid where it has more than `limit` bytes."""
        ...

    def open(self, key: str, *, start: int = 0, size: int | None = None) -> AbstractContextManager[BinaryIO] | None:
        """A stream of the object, from `start` on, of at most `size` bytes; None where there is none."""
        ...

    def head(self, key: str) -> Head | None:
        """Size and time without the bytes; None where there is none."""
        ...

    def list(self, prefix: str, *, after: str = "") -> Iterator[Head]:
        """Objects whose key starts with `prefix` (a folder, ending in `/`) and sorts behind `after`, by key.

        Only for flat folders: nothing below a further `/` is promised to be in order.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the object. No error where there is none."""
        ...

    def now(self) -> datetime:
        """The store's own clock."""
        ...


@runtime_checkable
class Granted(Protocol):
    """A store whose server grants each right by itself."""

    def lacking(self, key: str) -> tuple[str, ...]:
        """Rights that are a convenience and are not given, tried with `key`, which is then gone.

        Raises Unavailable, and Failed where one is missing without which large objects can't be stored.
        """
        ...
