"""Streams of objects: of a part of one, and read whole up to a limit."""

import io
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, BinaryIO

from dstack.model.errors import Invalid

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class _Raw(io.RawIOBase):
    def __init__(self, source: BinaryIO, size: int) -> None:
        super().__init__()
        self._source, self._left = source, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        data = self._source.read(min(len(view), self._left))
        view[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def close(self) -> None:
        self._source.close()
        super().close()


class Limited(io.BufferedReader):
    """The next `size` bytes of a stream, which is closed with it."""

    def __init__(self, source: BinaryIO, size: int) -> None:
        """Reads nothing yet."""
        super().__init__(_Raw(source, size))


def whole(stream: AbstractContextManager[BinaryIO] | None, key: str, url: str, *, limit: int) -> bytes | None:
    """All of the object's bytes, None where there is no object. Raises Invalid where they are more than `limit`."""
    if stream is None:
        return None
    with stream as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        msg = f"{key} in the store {url} has more than the {limit} bytes accepted"
        raise Invalid(msg)
    return data
