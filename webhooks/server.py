"""The receiver as a controller holds it: a process that listens, started again when it dies, and the news it brings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class What(StrEnum):
    """What may have changed."""

    CODE = "code"
    STATE = "state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A repository the receiver answers for, at the paths that `dstack.model.hookpath` makes of these.

    `name`: as the configuration calls it, shown in logs and metrics: no credentials in it. `repository`: its id, where
    it is known. `secrets` verify webhooks, `tokens` let runners and users wait and poke; the first is the newest.
    """

    name: str
    secrets: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    repository: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one repository's controller is doing: counts since its start; `polled`: seconds since the last good poll."""

    name: str
    polled: float | None
    turns: int = 0
    pushes: int = 0
    runs: int = 0
    failures: int = 0


class Receiver:
    """Listens from the moment it is made until `stop`. May be called from any thread; nothing here blocks for long."""

    def __init__(
        self,
        address: str,
        repositories: Sequence[Served],
        woke: Callable[[str, What], None],
        *,
        standing: Callable[[], Sequence[Standing]] = tuple,
        deliveries: Path | None = None,
    ) -> None:
        """`address`: `HOST:PORT`, or a port of this machine alone. `woke(name, what)` must return soon.

        `deliveries`: a file that remembers deliveries over restarts. Raises Invalid (the address), Failed (it's taken).
        """
        raise NotImplementedError

    @property
    def address(self) -> str:
        """`HOST:PORT` as bound: with port 0, the one the system chose."""
        raise NotImplementedError

    def serve(self, repositories: Sequence[Served]) -> None:
        """Answer for these from now on: when an id became known, or a secret was rotated."""
        raise NotImplementedError

    def changed(self, name: str) -> None:
        """Tell those who wait for this repository that something changed."""
        raise NotImplementedError

    def stop(self) -> None:
        """Close the door; the process has ended when this returns."""
        raise NotImplementedError
