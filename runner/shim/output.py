"""The file of frames as the shim writes it. On a full disk pieces are dropped and counted, and the commands go on."""

import os
import struct
import time

HEADER = struct.Struct(">BdI")  # as in runner.frames, which is too slow to import here
STDOUT, STDERR, SYSTEM = 1, 2, 3


class Output:
    """`output` in the working directory, open for appending."""

    def __init__(self) -> None:
        """Open it."""
        self._fd = os.open("output", os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._end = os.fstat(self._fd).st_size
        self._gap = 0
        self._trouble = ""

    def write(self, stream: int, data: bytes) -> None:
        """Append one piece, and before it a line about those that were lost."""
        note = f"dstack: {self._gap} bytes of output are lost here: {self._trouble}\n".encode() if self._gap else b""
        frames = (pack(SYSTEM, note) if note else b"") + pack(stream, data)
        try:
            self._append(frames)
        except OSError as error:
            os.ftruncate(self._fd, self._end)
            self._gap += len(data)
            self._trouble = os.strerror(error.errno or 0)
        else:
            self._end += len(frames)
            self._gap = 0

    def finish(self) -> str:
        """Make it durable; a sentence where output is lost, else nothing."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            self._trouble = os.strerror(error.errno or 0)
        return f"output is incomplete: {self._trouble}" if self._trouble else ""

    def _append(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._fd, data) :]


def pack(stream: int, data: bytes) -> bytes:
    """A frame that came now."""
    return HEADER.pack(stream, time.time(), len(data)) + data
