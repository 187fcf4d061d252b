"""Looks at a Docker engine every few seconds: whether it answers, has room, and enforces limits."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from dstack.model.errors import Failed, Unavailable
from runner import engine_trouble, limits
from runner.disk import Guard, is_another_disk, space_of
from runner.engine_values import Refused

LOG = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
ADVICE = "or run jobs as processes (`dstack-runner config --executor process`)"


class Looks(Protocol):
    """What is asked of an engine."""

    url: str

    def ping(self) -> None:
        """Raises Unavailable, Refused where it doesn't answer."""
        ...

    def data_root(self) -> str:
        """Where it keeps images."""
        ...


class EngineWatch:
    """`pause`: why no container is begun now; empty while they are. `unlimited`: limits without effect.

    `try_limits` names those; `beside`: a folder whose disk is looked at by others; `keep`: see `runner.disk`.
    """

    def __init__(
        self,
        engine: Looks,
        try_limits: Callable[[], tuple[str, ...]],
        poke: Callable[[], None],
        *,
        beside: Path,
        keep: int | None = None,
    ) -> None:
        """Nothing is looked at yet. `poke` is called when something has changed."""
        self.pause = ""
        self.unlimited: tuple[str, ...] = ()
        self._engine, self._try_limits, self._poke = engine, try_limits, poke
        self._beside = beside
        self._guard = Guard(keep=keep, disk="the disk of Docker")
        self._root: Path | None = None
        self._met = self._tried = False
        self._closed = threading.Event()

    def begin(self) -> None:
        """Look once, then from a thread. Raises Failed where the engine is away and waiting can't mend it."""
        self.turn(time.monotonic())
        threading.Thread(target=self._run, name="engine watch", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def turn(self, now: float) -> None:
        """Look once; `now` in ticks. Raises Failed as `begin` does, before the engine was ever there."""
        before, self.pause = self.pause, self._trouble(now)
        if self.pause and not before:
            LOG.warning("no container is begun: %s; waiting for that to change", self.pause)
        elif before and not self.pause:
            LOG.warning("Docker can be used: containers are begun")
        if self.pause != before:
            self._poke()

    def try_limits(self) -> None:
        """Once for each time that the engine came: it may be another one."""
        if not self._met or self._tried:
            return
        try:
            self.unlimited = self._try_limits()
        except (Refused, Unavailable, ValueError, KeyError) as error:
            LOG.warning("it could not be tried whether Docker enforces limits: %s", error)
        else:
            if self.unlimited:
                LOG.warning("%s", limits.warning(self.unlimited))
        self._tried = True
        self._poke()

    def _trouble(self, now: float) -> str:
        try:
            self._engine.ping()
            if not self._met:
                root = self._engine.data_root()
                self._root = Path(root) if is_another_disk(root, self._beside) else None
                self._met, self._tried = True, False
        except (Unavailable, Refused) as error:
            if not self._met and not self.pause and engine_trouble.is_hopeless(self._engine.url, error.__cause__):
                msg = f"{error}; {ADVICE}"
                raise Failed(msg) from error
            self._met = False
            return str(error)
        if now >= self._guard.look_at:
            self._guard = self._guard.seen(space_of(self._root) if self._root else None, now)
        return self._guard.pause

    def _run(self) -> None:
        while True:
            try:
                self.try_limits()
                if self._closed.wait(LOOK_SECONDS):
                    return
                self.turn(time.monotonic())
            except Exception:
                LOG.exception("a look at Docker failed; it is tried again")
                if self._closed.wait(LOOK_SECONDS):
                    return
