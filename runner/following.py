"""Follows one container from a thread: its output into the file of frames, and how it ended. No byte lost, or twice."""

import logging
import threading
from collections.abc import Callable, Mapping

from dstack.model.errors import Unavailable
from dstack.model.job import Reason
from runner.engine import Engine
from runner.engine_values import State
from runner.executor import OUTPUT, Exit, Launch
from runner.frames import STDERR, STDOUT
from runner.multiplexed import pieces
from runner.output import NotWritten, OutputFile
from runner.rejoining import Rejoining
from runner.streams import Stream

ENDS_SOON = 5
PAUSE, LONGEST_PAUSE = 0.1, 10.0
FULL_TRIES = 12

logger = logging.getLogger(__name__)


class Closed(Exception):
    """The runner is leaving; the container goes on."""


class Gone(Exception):
    """There is no such container any more."""


class Following:
    """Reads a container to its end. What is already in the file, from whatever reader, is not written again.

    The live output is read once, from before the start. The engine's log lags behind it by unfinished lines, but can be
    read again from its beginning: so it is what is read after a restart, or when the connection broke. An engine that
    was killed has forgotten what it hadn't written yet: see `runner.rejoining`.
    """

    def __init__(self, engine: Engine, launch: Launch, name: str, ended: Callable[["Following", State], Exit]) -> None:
        """Nothing is read yet. `ended` makes an exit of the container's last state; it may raise Unavailable."""
        self.exit: Exit | None = None
        self.launch, self.name = launch, name
        # Whether the engine was away at any time.
        self.was_away = False
        self._engine, self._ended = engine, ended
        self._stream: Stream | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, stream: Stream | None, wake: Callable[[], None]) -> None:
        """Start reading: `stream`, or the log where there is none. Calls `wake` at the end. Raises OSError."""
        output = OutputFile(self.launch.folder / OUTPUT)
        self._stream = stream
        self._thread = threading.Thread(target=self._run, args=(output, wake), name=self.name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading; nothing is written any more after this."""
        self._closed.set()
        if (stream := self._stream) is not None:
            stream.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self, output: OutputFile, wake: Callable[[], None]) -> None:
        try:
            self.exit = self._to_the_end(output)
        except Closed:
            return
        except Gone:
            self.exit = lost("its container was removed by somebody else", Reason.LOST)
        except NotWritten as error:
            self.exit = lost(f"its output can't be written on the runner: {error}", Reason.DISK_FULL)
        except Exception as error:
            logger.exception("following a container failed", extra={"attempt": self.launch.key})
            self.exit = lost(f"its container was lost sight of: {error}", Reason.INTERNAL)
        finally:
            self._use(None)
            output.close()
        wake()

    def _to_the_end(self, output: OutputFile) -> Exit:
        """Read until the container has ended and all of its output is in the file."""
        step, pause, full = self._live if self._stream else self._again, PAUSE, 0
        while True:
            try:
                if (state := step(output)) is not None:
                    return self._ended(self, state)
                pause, full = PAUSE, 0
            except (Unavailable, NotWritten) as error:
                full += isinstance(error, NotWritten)
                self.was_away |= isinstance(error, Unavailable)
                if full == FULL_TRIES:
                    raise
                self._rest(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            step = self._again

    def _live(self, output: OutputFile) -> State | None:
        self._copy(output, {stream: Rejoining() for stream in (STDOUT, STDERR)})
        return self._state() if self._engine.wait(self.name, ENDS_SOON) else None

    def _again(self, output: OutputFile) -> State | None:
        """Read the log from its beginning. What was said of a container that had ended before is complete."""
        state = self._state()
        over = state.status in ("exited", "dead")
        self._use(self._engine.logs(self.name, follow=not over))
        self._copy(output, output.rejoining())
        if over:
            return state
        self._engine.wait(self.name, ENDS_SOON)
        return None

    def _state(self) -> State:
        state = self._engine.state(self.name)
        if state is None:
            raise Gone
        return state

    def _copy(self, output: OutputFile, streams: Mapping[int, Rejoining]) -> None:
        if self._stream is not None:
            for stream, data in pieces(self._stream.read):
                if self._closed.is_set():
                    raise Closed
                news = streams[stream].feed(data)
                if news.lost:
                    output.lose(stream, news.lost)
                output.write(stream, news.data)
        self._use(None)
        if self._closed.is_set():
            raise Closed

    def _use(self, stream: Stream | None) -> None:
        before, self._stream = self._stream, stream
        if before is not None:
            before.close()
        if stream is not None and self._closed.is_set():
            stream.stop()

    def _rest(self, seconds: float) -> None:
        self._use(None)
        if self._closed.wait(seconds):
            raise Closed


def lost(message: str, reason: Reason) -> Exit:
    """An end of which the exit code is not known."""
    return Exit(exit_code=None, reason=reason, message=message)
