"""The file of frames as the runner writes it for a container: continued after a crash where it broke off."""

import time
from io import FileIO
from pathlib import Path

from runner.frames import STDERR, STDOUT, Frame, pack, read_frame
from runner.shipped import read_mark

PIECE = 64 * 1024


class NotWritten(Exception):
    """The disk took no more; the file ends with a whole frame all the same."""


class OutputFile:
    """An attempt's output, open for appending. `seen` counts the bytes of each stream that are in it."""

    def __init__(self, path: Path) -> None:
        """Open it, and cut off a frame that was being written when a runner died. Raises OSError."""
        self._file = FileIO(path, "ab")
        self.seen = {STDOUT: 0, STDERR: 0}
        self._end = self._count(path)
        self._file.truncate(self._end)

    def write(self, stream: int, data: bytes) -> None:
        """Append what came now. Raises NotWritten."""
        for start in range(0, len(data), PIECE):
            self._append(Frame(stream, time.time(), data[start : start + PIECE]))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, frame: Frame) -> None:
        data = pack(frame)
        try:
            written = 0
            while written < len(data):
                written += self._file.write(data[written:]) or 0
        except OSError as error:
            self._file.truncate(self._end)
            raise NotWritten(str(error)) from error
        self._end += len(data)
        self.seen[frame.stream] = self.seen.get(frame.stream, 0) + len(frame.data)

    def _count(self, path: Path) -> int:
        """What is in the file; of what was given back only the numbers are known."""
        mark = read_mark(path)
        self.seen |= dict(mark.seen)
        end = mark.position
        with path.open("rb") as file:
            file.seek(end)
            try:
                while frame := read_frame(file):
                    self.seen[frame.stream] = self.seen.get(frame.stream, 0) + len(frame.data)
                    end = file.tell()
            except ValueError:
                return end
        return end
