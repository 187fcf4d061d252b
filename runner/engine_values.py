"""What is said to and by a Docker Engine: containers to create, what became of them, images, refusals."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dstack.model.errors import DstackError


class Refused(DstackError):
    """The engine said no: its HTTP status and words."""

    def __init__(self, status: int, words: str) -> None:
        """As the engine put it."""
        super().__init__(f"Docker says: {words}")
        self.status, self.words = status, words


class Image(NamedTuple):
    """An image that is there. `digest` is the registry's, or the id where it came from none."""

    id: str
    digest: str
    user: str


class State(NamedTuple):
    """A container. `status` is the engine's word: created, running, exited, …; `pid` is on the engine's machine.

    `binds` are the folders here that it may write in.
    """

    id: str
    status: str
    exit_code: int
    oom: bool
    pid: int
    image: str
    labels: Mapping[str, str]
    binds: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What to create. `binds` are (path here, path in the container, read-only); limits in cores and bytes.

    `gpus`: indices of those it may use.
    """

    name: str
    image: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str
    labels: Mapping[str, str]
    binds: tuple[tuple[Path, str, bool], ...]
    cpu: float | None = None
    memory: int | None = None
    shm_size: int | None = None
    user: str | None = None
    gpus: tuple[int, ...] = ()
