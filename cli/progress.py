"""How far a transfer of bytes is: a bar on a terminal, elsewhere a plain line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cli.ago import size_text
from cli.terminal import clean, tell

Progress = Callable[[int, int], None]

EVERY_SECONDS = 10.0
_BAR_EVERY_SECONDS = 0.1


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Gives a function that is told (bytes done, bytes in all), by any thread."""
    if not sys.stderr.isatty():
        yield _Now(EVERY_SECONDS, lambda done, total: tell(plain_line(title, done, total)))
        return
    from rich.console import Console  # noqa: PLC0415 (37 ms that a pipe doesn't need)
    from rich.progress import (  # noqa: PLC0415 (likewise)
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    numbers = (DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), *numbers)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(clean(title), total=None)
        yield _Now(_BAR_EVERY_SECONDS, lambda done, total: bar.update(task, completed=done, total=total))


def plain_line(title: str, done: int, total: int) -> str:
    """For a log."""
    percent = 100 * done // total if total else 100
    return f"{clean(title)}: {size_text(done)} of {size_text(total)} ({percent} %)"


class _Now:
    """Tells only now and then: an artifact set may count ten thousand times a second."""

    def __init__(self, every: float, tell_: Progress) -> None:
        self._every = every
        self._tell = tell_
        self._told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told >= self._every:
            self._told = now
            self._tell(done, total)
