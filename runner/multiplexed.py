"""The two streams of a container in one, as the Docker Engine sends them (API, ContainerAttach, "Stream format")."""

import struct
from collections.abc import Callable, Iterator

from runner.frames import STDERR, STDOUT

HEADER = struct.Struct(">BxxxI")
Read = Callable[[int], bytes]


def pieces(read: Read) -> Iterator[tuple[int, bytes]]:
    """Each piece with its stream, in the order they were written, until the stream ends (even within a piece)."""
    while len(header := exactly(read, HEADER.size)) == HEADER.size:
        stream, length = HEADER.unpack(header)
        while length and (data := read(min(length, 65536))):
            length -= len(data)
            yield (STDERR if stream == STDERR else STDOUT), data
        if length:
            return


def exactly(read: Read, size: int) -> bytes:
    """So many bytes; fewer where the stream ends."""
    data = b""
    while len(data) < size and (more := read(size - len(data))):
        data += more
    return data
