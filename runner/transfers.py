"""How far the long transfers of attempts in hand are, for the heartbeat. It is told by many threads."""

from collections.abc import Callable, Container
from enum import StrEnum

from dstack.model.pool import Transfer
from dstack.store.tally import Progress


class What(StrEnum):
    """What is under way."""

    IMAGE = "image"
    INPUT = "input"
    ARTIFACTS = "artifacts"


# Who shows how far something is: gives back the progress to tell it.
Watch = Callable[[What, Progress], Progress]


class Transfers:
    """One of each attempt at most: the last that was heard of."""

    def __init__(self) -> None:
        """Nothing is under way."""
        self._under_way: dict[str, Transfer] = {}

    def watch(self, key: str, what: What, progress: Progress) -> Progress:
        """The same progress, noted for the attempt."""

        def note(done: int, total: int) -> None:
            progress(done, total)
            if total:
                self._under_way[key] = Transfer(what=what, done=min(done, total), total=total)

        return note

    def forget(self, key: str) -> None:
        """Nothing of this attempt is under way any more."""
        self._under_way.pop(key, None)

    def shown(self, held: Container[str]) -> dict[str, Transfer]:
        """As they are now, of these attempts."""
        return {key: one for key, one in self._under_way.copy().items() if key in held}
