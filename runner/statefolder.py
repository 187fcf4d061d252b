"""A runner's state folder: one daemon at a time works with it, and others may ask it to drain."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dstack.model.errors import Failed

DRAIN = "drain"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder, which is made where it is missing. Raises Failed where another daemon has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (folder / "lock").open("ab")
    except OSError as error:
        msg = f"the runner's state folder {folder} can't be used: {error.strerror}"
        raise Failed(msg) from error
    with file:
        for last in (False, False, False, False, True):
            try:
                # Children don't inherit the descriptor, so what outlives the runner doesn't hold its folder.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if last:
                    msg = f"a runner works with {folder} already: end it, or give this one its own (--state)"
                    raise Failed(msg) from error
                time.sleep(0.05)  # it may be held for an instant only, by who looks whether it is held
        yield


def is_held(folder: Path) -> bool:
    """Whether a daemon works with it."""
    try:
        with (folder / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def ask_to_drain(folder: Path) -> None:
    """Ask whoever works with it, now or next, to drain. It stands until that is done. Raises Failed."""
    try:
        (folder / DRAIN).touch()
    except OSError as error:
        msg = f"{folder / DRAIN} can't be written: {error.strerror}; do it as the runner's user"
        raise Failed(msg) from error


def is_asked_to_drain(folder: Path) -> bool:
    """Whether that was asked."""
    return (folder / DRAIN).exists()


def forget_drain(folder: Path) -> None:
    """It is done, or not wanted any more. Raises Failed."""
    try:
        (folder / DRAIN).unlink(missing_ok=True)
    except OSError as error:
        msg = f"{folder / DRAIN} can't be removed: {error.strerror}; do it as the runner's user"
        raise Failed(msg) from error


def remember(path: Path, text: str) -> None:
    """A file of the state folder, whole or not at all."""
    scratch = path.with_name(f"{path.name}.new")
    scratch.write_text(text)
    scratch.replace(path)
