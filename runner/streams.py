"""Connections to a Docker Engine over which bytes come for long, as files to read."""

import io
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException

from urllib3.exceptions import HTTPError

from runner.multiplexed import Read


class Stream:
    """The output of a container, to be read by one thread and closed by another."""

    def __init__(self, read: Read, fileno: int, close: Callable[[], None]) -> None:
        """`fileno` is the connection's."""
        self._read, self._close = read, close
        self._socket = socket.socket(fileno=os.dup(fileno))

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end, or where the connection broke: ask for the state to tell which."""
        try:
            return self._read(size)
        except (OSError, ValueError, HTTPException, HTTPError):
            return b""

    def stop(self) -> None:
        """Have the reader see the end, whatever it waits for."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the connection back; by the reader."""
        self._socket.close()
        self._close()


class Chunks(io.RawIOBase):
    """The bytes of an iterator as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        """Read nothing yet."""
        super().__init__()
        self._chunks, self._left = chunks, b""

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Some bytes into the buffer; none at the end."""
        while not self._left and (chunk := next(self._chunks, None)) is not None:
            self._left = chunk
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size
