"""A runner's state folder: one daemon at a time works with it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dstack.model.errors import Failed


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
        try:
            # Children don't inherit the descriptor, so what outlives the runner doesn't hold its folder.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"a runner works with {folder} already: end that one, or give this one a folder of its own (--state)"
            raise Failed(msg) from error
        yield
