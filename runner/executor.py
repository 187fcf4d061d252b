"""What the agent asks of an executor: the few verbs with which an attempt's commands are run, watched and ended.

The output of an attempt is a file of frames, `<folder>/output`, that only grows (see `runner.frames`): the log is read
from there, so a runner that was restarted finds all of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from dstack.model.errors import DstackError
from dstack.model.events import Usage
from dstack.model.job import Job, Reason
from dstack.store.tally import Progress, silent

OUTPUT = "output"


class Signal(StrEnum):
    """How to end an attempt: TERM asks every process of it, KILL doesn't ask."""

    TERM = "TERM"
    KILL = "KILL"


def _nothing() -> None:
    """Nobody asks to give up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lent:
    """A folder of this machine, `here`, that a job sees at `path` (absolute, or relative to its working folder).

    `ours`: made by this runner, and nobody else's.
    """

    here: Path
    path: str
    read_only: bool = False
    ours: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """All that is needed to start an attempt.

    `key` is `<job>.<attempt>`. `tree` is the checkout on this machine (repository root), writable. `folder` is the
    attempt's own folder on this machine, where `output` and whatever the executor keeps are written. `labels` mark what
    the executor makes (run, job, attempt, runner, instance). `mounts`: what to put at absolute paths of a container.
    `check` raises where a start that takes long is to be given up; `progress` is told how far a pull is.
    `gpus`: indices of those it may use. `lent`: folders that a container is to see; a process finds links to them.
    """

    key: str
    job: Job
    script: str
    environment: Mapping[str, str]
    tree: Path
    folder: Path
    labels: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, Path] = field(default_factory=dict)
    check: Callable[[], None] = _nothing
    progress: Progress = silent
    gpus: tuple[int, ...] = ()
    lent: tuple[Lent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How the commands ended. `signal` is set where a signal ended them (`exit_code` is then 128 + signal).

    `warnings`: sentences for the user.
    `reason` is set only where the executor itself knows better than the exit code (oom, internal, lost).
    """

    exit_code: int | None
    signal: int | None = None
    oom: bool = False
    reason: Reason | None = None
    message: str = ""
    usage: Usage = field(default_factory=Usage)
    image: str | None = None
    warnings: tuple[str, ...] = ()


class StartFailed(DstackError):
    """An attempt could not be started: with the reason and sentence the user sees."""

    def __init__(self, reason: Reason, message: str) -> None:
        """`reason` of the closed list; the message says what to do."""
        super().__init__(message)
        self.reason = reason


class Executor(Protocol):
    """Runs attempts. Methods are quick but `start` (which may pull an image) and may be called from several threads.

    An executor calls the `wake` it was made with (from any thread) when an attempt has ended.
    """

    name: str

    @property
    def pause(self) -> str:
        """Why nothing is to be begun with it now; empty while all is well."""
        ...

    @property
    def unlimited(self) -> tuple[str, ...]:
        """Resources whose limits were found without effect, as users write them."""
        ...

    def gpus(self) -> Mapping[str, tuple[int, ...]]:
        """Indices of the GPUs that attempts of this runner use, adopted or not, by key. Raises Unavailable."""
        ...

    def start(self, launch: Launch) -> None:
        """Start the commands. Raises StartFailed. Starting what this executor already runs for the key adopts it."""
        ...

    def adopt(self, launch: Launch) -> bool:
        """After a restart: take over what an earlier process started for this key. False where nothing is left."""
        ...

    def exited(self, key: str) -> Exit | None:
        """How it ended; None while any of it runs. Once given, `output` is complete and never grows again."""
        ...

    def signal(self, key: str, signal: Signal) -> None:
        """Signal every process of the attempt. No error where it has ended."""
        ...

    def remove(self, key: str) -> None:
        """Kill what is left and remove what the executor keeps outside `folder` (a container). Idempotent."""
        ...

    def leftovers(self) -> tuple[str, ...]:
        """Keys of attempts of this runner that still have something outside (containers), adopted or not."""
        ...

    def close(self) -> None:
        """Stop following; leave the attempts running."""
        ...
