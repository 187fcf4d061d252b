"""The file of frames as the runner writes it for a container: continued after a crash where it broke off."""

import time
from io import FileIO
from pathlib import Path
from typing import Annotated

from msgspec import Meta, structs

from dstack.model.codec import Value, decode, encode
from dstack.model.errors import Invalid
from runner.frames import STDERR, STDOUT, Frame, pack, read_frame
from runner.rejoining import Rejoining
from runner.shipped import read_mark

PIECE = 64 * 1024
# As much as an engine may have sent and not yet written to its own log, for each stream.
TAIL = 1024 * 1024

_LIMIT = 4096
_Count = Annotated[int, Meta(ge=0, le=2**62)]


class NotWritten(Exception):
    """The disk took no more; the file ends with a whole frame all the same."""


class Gap(Value, frozen=True, kw_only=True):
    """Bytes of a stream that are in the file and not in the engine's own log; `end`: up to where they are."""

    size: _Count = 0
    end: _Count = 0


class Gaps(Value, frozen=True, kw_only=True):
    """Of both streams, as kept beside the file."""

    stdout: Gap = Gap()
    stderr: Gap = Gap()


class OutputFile:
    """An attempt's output, open for appending. `seen` counts the bytes of each stream that are in it."""

    def __init__(self, path: Path) -> None:
        """Open it, and cut off a frame that was being written when a runner died. Raises OSError."""
        self._file = FileIO(path, "ab")
        self._kept = path.with_name(f"{path.name}.gaps")
        self._gaps = read_gaps(self._kept)
        self.seen = {STDOUT: 0, STDERR: 0}
        self._tails = {STDOUT: bytearray(), STDERR: bytearray()}
        self._end = self._count(path)
        self._file.truncate(self._end)

    def write(self, stream: int, data: bytes) -> None:
        """Append what came now. Raises NotWritten."""
        for start in range(0, len(data), PIECE):
            self._append(Frame(stream, time.time(), data[start : start + PIECE]))

    def rejoining(self) -> dict[int, Rejoining]:
        """What to read the engine's log with, from its beginning, by stream."""
        return {stream: self._rejoining(stream, gap) for stream, gap in self._by_stream().items()}

    def lose(self, stream: int, size: int) -> None:
        """The last bytes of a stream are not in the engine's log: remember it. Raises NotWritten."""
        before = self._by_stream()[stream]
        gap = Gap(size=before.size + size, end=self.seen[stream])
        self._gaps = structs.replace(self._gaps, **{"stdout" if stream == STDOUT else "stderr": gap})
        scratch = self._kept.with_name(f"{self._kept.name}.new")
        try:
            scratch.write_bytes(encode(self._gaps))
            scratch.replace(self._kept)
        except OSError as error:
            raise NotWritten(str(error)) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _by_stream(self) -> dict[int, Gap]:
        return {STDOUT: self._gaps.stdout, STDERR: self._gaps.stderr}

    def _rejoining(self, stream: int, gap: Gap) -> Rejoining:
        after = min(max(0, self.seen[stream] - gap.end), len(self._tails[stream]))
        return Rejoining(self.seen[stream] - gap.size, bytes(self._tails[stream][len(self._tails[stream]) - after :]))

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
        self._note(frame)

    def _note(self, frame: Frame) -> None:
        self.seen[frame.stream] = self.seen.get(frame.stream, 0) + len(frame.data)
        if (tail := self._tails.get(frame.stream)) is not None:
            tail += frame.data
            if len(tail) > 2 * TAIL:
                del tail[:-TAIL]

    def _count(self, path: Path) -> int:
        """What is in the file; of what was given back only the numbers are known."""
        mark = read_mark(path)
        self.seen |= dict(mark.seen)
        end = mark.position
        with path.open("rb") as file:
            file.seek(end)
            try:
                while frame := read_frame(file):
                    self._note(frame)
                    end = file.tell()
            except ValueError:
                return end
        return end


def read_gaps(path: Path) -> Gaps:
    """Those of an earlier start. Raises OSError."""
    try:
        return decode(path.read_bytes(), Gaps, "it", limit=_LIMIT)
    except (FileNotFoundError, Invalid):
        return Gaps()
