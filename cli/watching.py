"""Shows something anew whenever it changes: in place on a terminal, one below the other elsewhere."""

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cli.terminal import is_terminal, tell
from dstack import interrupts
from dstack.model.errors import Unavailable

LOOK_SECONDS = 0.1
LEAST_SECONDS = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What is to be seen now. `over`: nothing will change any more."""

    text: str
    over: bool


def watch(frame: Callable[[], Frame], *, every: float, news: threading.Event) -> None:
    """Show frames, a new one each `every` seconds, until one is the last. What is away is waited for, and said once.

    With `news` the next one comes sooner.
    """
    screen, away = Screen(in_place=is_terminal() and os.environ.get("TERM") != "dumb"), ""
    while True:
        interrupts.check()
        wait = every
        news.clear()
        try:
            found = frame()
        except Unavailable as error:
            if not away:
                screen.keep()
                tell(f"{error}; waiting for it")
            away, wait = str(error), error.retry_after or every
        else:
            away = ""
            screen.show(found)
            if found.over:
                return
        _sleep(wait, None if away else news)


class Screen:
    """Remembers what it has drawn. `in_place`: over what it drew before."""

    def __init__(self, *, in_place: bool) -> None:
        """Nothing is drawn yet."""
        self._in_place = in_place
        self._shown: str | None = None
        self._height = 0

    def show(self, frame: Frame) -> None:
        """Draw it, if it is another one. Of the last frame all is shown, of others what the terminal has room for."""
        text = frame.text if frame.over or not self._in_place else fitted(frame.text, shutil.get_terminal_size().lines)
        if text == self._shown and not frame.over:
            return
        if self._in_place:
            sys.stdout.write(f"\x1b[{self._height}F\x1b[J" if self._height else "")
        elif self._shown == text:
            return
        elif self._shown is not None:
            sys.stdout.write("\n")
        sys.stdout.write(f"{text}\n" if text else "")
        sys.stdout.flush()
        self._shown, self._height = text, text.count("\n") + 1 if text else 0

    def keep(self) -> None:
        """Something else is written below: the next frame is drawn below that."""
        self._height = 0
        if self._in_place:
            self._shown = None


def fitted(text: str, lines: int) -> str:
    """The text, cut where a terminal of so many lines ends (the last one is the cursor's)."""
    found = text.split("\n")
    room = max(lines - 1, 2)
    if len(found) <= room:
        return text
    return "\n".join([*found[: room - 1], f"… and {len(found) - room + 1} more lines"])


def _sleep(seconds: float, news: threading.Event | None) -> None:
    begin = time.monotonic()
    while (left := begin + seconds - time.monotonic()) > 0:
        interrupts.check()
        if news and news.is_set() and time.monotonic() > begin + LEAST_SECONDS:
            return
        time.sleep(min(left, LOOK_SECONDS))
