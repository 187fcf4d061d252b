"""The file of frames an attempt's output is kept in: for each piece its stream, the time it came, and its bytes.

A frame is a 13-byte header — stream (1: stdout, 2: stderr, 3: dstack itself), time (big-endian float64, seconds since
the epoch), length (big-endian uint32) — and the bytes as they came. A torn frame at the end is one still being written.
"""

import struct
from typing import BinaryIO, NamedTuple

HEADER = struct.Struct(">BdI")
STDOUT, STDERR, SYSTEM = 1, 2, 3
MAX_FRAME = 1024 * 1024


class Frame(NamedTuple):
    """One piece of output."""

    stream: int
    at: float
    data: bytes


def pack(frame: Frame) -> bytes:
    """The bytes of a frame."""
    return HEADER.pack(frame.stream, frame.at, len(frame.data)) + frame.data


def read_frame(file: BinaryIO) -> Frame | None:
    """The next whole frame; None, the position unchanged, where there is none yet. Raises ValueError on garbage."""
    start = file.tell()
    header = file.read(HEADER.size)
    if len(header) < HEADER.size:
        file.seek(start)
        return None
    stream, at, length = HEADER.unpack(header)
    if stream not in (STDOUT, STDERR, SYSTEM) or length > MAX_FRAME:
        msg = f"no frame at byte {start}"
        raise ValueError(msg)
    data = file.read(length)
    if len(data) < length:
        file.seek(start)
        return None
    return Frame(stream, at, data)


def read_frames(file: BinaryIO) -> list[Frame]:
    """The next whole frames, up to a MiB of them; none where there is none yet. Raises ValueError on garbage."""
    start = file.tell()
    data = file.read(MAX_FRAME + HEADER.size)
    found: list[Frame] = []
    position = 0
    while len(data) - position >= HEADER.size:
        stream, at, length = HEADER.unpack_from(data, position)
        if stream not in (STDOUT, STDERR, SYSTEM) or length > MAX_FRAME:
            if not found:
                msg = f"no frame at byte {start}"
                raise ValueError(msg)
            break
        end = position + HEADER.size + length
        if end > len(data):
            break
        found.append(Frame(stream, at, data[position + HEADER.size : end]))
        position = end
    file.seek(start + position)
    return found
