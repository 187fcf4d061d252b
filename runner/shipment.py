"""One attempt's log on its way from the file of frames to the store; it goes on from that file, whatever happens."""

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from dstack.model.errors import DstackError
from dstack.store.chunk import Record, behind
from dstack.store.log_writer import BUSY_SECONDS, LogWriter, flush_after
from runner.facts import pause
from runner.frames import SYSTEM, Frame, pack, read_frames
from runner.hiding import Hiding, Piece
from runner.shipped import EVERY, Mark, give_back, read_mark, tails_read, tails_written

LOG = logging.getLogger(__name__)

# Whether somebody follows this log, at this time in ticks. It may take as long as a question to the store.
Followed = Callable[[float], bool]


def _unfollowed(_now: float) -> bool:
    return False


def say(output: Path, text: str, at: float) -> None:
    """Add a line of dstack's own to the log. Only before the commands start: from then on another writes the file.

    A full disk costs the line, not the attempt.
    """
    line = pack(Frame(SYSTEM, at, f"dstack: {text}\n".encode()))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("ab", buffering=0) as file:
            end = file.tell()
            if file.write(line) != len(line):
                os.ftruncate(file.fileno(), end)
    except OSError as error:
        LOG.warning("a line of the log %s was lost: %s", output, error)


class Shipment:
    """Sends what has been written, bit by bit. Any thread may call it; one at a time gets through."""

    def __init__(
        self,
        output: Path,
        open_writer: Callable[[], LogWriter],
        *,
        began: float,
        followed: Followed = _unfollowed,
        secrets: tuple[bytes, ...] = (),
    ) -> None:
        """`open_writer` says how far the store has the log already. `began`, as all times here, in ticks.

        `secrets`: what is hidden before it leaves this machine, see `runner.masking.needles`.
        """
        self._output = output
        self._open_writer = open_writer
        self._began = began
        self._followed = followed
        self._for_followers = 0
        self._secrets = secrets
        self._hiding = Hiding(secrets)
        self._lock = threading.Lock()
        self._writer: LogWriter | None = None
        self._position = 0
        self._skip = 0
        self._given_back = 0
        self._seen: Counter[int] = Counter()
        self._waiting_since: float | None = None
        self._tries = 0
        self._again = 0.0
        self._damaged = False
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether nothing is left for `tick` to do."""
        return self._ended

    def tick(self, now: float) -> None:
        """Send what is due. Trouble is logged, and tried again later: the file keeps everything."""
        with self._lock:
            if now < self._again or self._ended:
                return
            try:
                self._ship(now)
            except (DstackError, OSError) as error:
                self._tries += 1
                self._again = now + pause(self._tries, str(self._output), error)
                LOG.log(logging.WARNING if self._tries == 1 else logging.DEBUG, "%s waits: %s", self._output, error)
            else:
                self._tries = 0

    def close(self, last_words: Iterable[str], at: float) -> int:
        """Send all of it and close it; the bytes it has. `last_words`: lines of dstack's own for its end.

        Raises what the store raises; may then be called again.
        """
        with self._lock:
            writer = self._opened()
            if not writer.closed:
                while self._read(writer, self._began):
                    writer.flush_full()
                if not self._ended:
                    words = [(SYSTEM, at, f"dstack: {line}\n".encode()) for line in last_words]
                    held = self._hiding.flush()
                    writer.append(self._unknown([*held, *self._hiding.feed(words, self._began), *self._hiding.flush()]))
                    self._ended = True
                writer.close()
            return writer.size

    def _ship(self, now: float) -> None:
        if not (self._writer and (self._writer.buffered or self._hiding.waits)) and not self._has_grown():
            return
        writer = self._opened()
        while not writer.closed and self._read(writer, now):
            writer.flush_full()
            self._waiting_since = None
            if self._position - self._given_back >= EVERY:
                writer.flush()
                self._give_back()
        if self._hiding.is_due(now):
            writer.append(self._unknown(self._hiding.flush()))
        if writer.buffered and self._waiting_since is None:
            self._waiting_since = now
        usual = self._is_due(writer, now)
        if usual or self._is_awaited(now):
            before = writer.seq
            writer.flush()
            self._waiting_since = None
            # They don't count: when nobody follows any more, a line after a silence is to be there at once as before.
            self._for_followers += 0 if usual else writer.seq - before
            self._give_back()

    def _give_back(self) -> None:
        """Let the disk have what the store has: all that was read, where nothing waits."""
        if self._position - self._given_back >= EVERY and not self._skip and not self._hiding.waits:
            mark = Mark(
                position=self._position,
                offset=self._seen.total(),
                seen=tuple(sorted(self._seen.items())),
                tails=tails_written(self._hiding.tails),
            )
            try:
                give_back(self._output, mark)
            except OSError as error:
                LOG.warning("what was sent of %s stays on the disk: %s", self._output, error)
                return
            self._given_back = self._position

    def _is_due(self, writer: LogWriter, now: float) -> bool:
        if self._waiting_since is None:
            return False
        return now - self._waiting_since >= flush_after(now - self._began, writer.seq - self._for_followers)

    def _is_awaited(self, now: float) -> bool:
        """Whether it would wait on, but for somebody who follows. The store is asked only where that matters."""
        since = self._waiting_since
        return since is not None and now - since >= BUSY_SECONDS and self._followed(now)

    def _opened(self) -> LogWriter:
        if self._writer is None:
            writer, mark = self._open_writer(), read_mark(self._output)
            self._position = self._given_back = mark.position
            self._seen = Counter(dict(mark.seen))
            self._hiding = Hiding(self._secrets, tails_read(mark))
            self._skip = max(0, writer.offset - mark.offset)
            # What the store had taken and has lost is gone from the disk too: the reader sees the gap by its offsets.
            writer.offset = max(writer.offset, mark.offset)
            self._writer = writer
        return self._writer

    def _has_grown(self) -> bool:
        try:
            return self._output.stat().st_size > self._position
        except FileNotFoundError:
            return False

    def _read(self, writer: LogWriter, now: float) -> bool:
        """Take what there is, up to what one chunk holds; whether there may be more."""
        if not self._has_grown():
            return False
        with self._output.open("rb", buffering=0) as file:
            file.seek(self._position)
            while frames := self._next(file):
                writer.append(self._unknown(self._hiding.feed(frames, now)))
                self._position = file.tell()
                for frame in frames:
                    self._seen[frame.stream] += len(frame.data)
                if writer.full:
                    return True
        return False

    def _unknown(self, pieces: Sequence[Piece]) -> list[Record]:
        """What follows the bytes that the store has already."""
        unknown = list(behind(pieces, self._skip)) if self._skip else [Record(*piece) for piece in pieces]
        self._skip = max(0, self._skip - sum(len(data) for _, _, data in pieces))
        return unknown

    def _next(self, file: BinaryIO) -> list[Frame]:
        if self._damaged:
            return []
        try:
            return read_frames(file)
        except ValueError as error:
            LOG.error("%s is damaged, its rest is lost: %s", self._output, error)  # noqa: TRY400 (nothing of ours failed)
            self._damaged = True
            return []
