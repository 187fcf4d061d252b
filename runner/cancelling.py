"""How work under way in another thread is asked to give up."""

import threading


class Cancelled(Exception):
    """The work gave up."""


class Cancel:
    """One piece of work's flag. Work looks at it between its steps."""

    def __init__(self) -> None:
        """Not yet."""
        self._asked = threading.Event()

    def ask(self) -> None:
        """Have the work give up at its next step."""
        self._asked.set()

    @property
    def asked(self) -> bool:
        """Whether it was asked to give up."""
        return self._asked.is_set()

    def check(self, _done: int = 0, _total: int = 0) -> None:
        """Raises Cancelled where that was asked for. Fits as the `progress` of artifacts."""
        if self._asked.is_set():
            raise Cancelled
