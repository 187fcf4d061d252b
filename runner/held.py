"""One attempt in a runner's hands: all that is known of it. A value; what follows is decided in `runner.duty`."""

from dataclasses import dataclass, field
from enum import StrEnum

from dstack.model.events import Ended, Times
from dstack.model.job import Job, Reason
from dstack.model.pool import Attempt, Phase
from runner.executor import Exit


class Cause(StrEnum):
    """Why an attempt is being ended before its time."""

    STOP = "stop"
    ABORT = "abort"
    TIMEOUT = "timeout"
    INTERRUPT = "interrupt"


class Task(StrEnum):
    """The slow work under way for an attempt, at most one at a time. CLOSE ends the log; SAVE the artifacts, too."""

    PREPARE = "prepare"
    CLOSE = "close"
    SAVE = "save"
    DISCARD = "discard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What went wrong, with the reason and the sentence the user sees."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Slow work that can't be done for now. Times in ticks: `since` the first failure, `again` is the next try."""

    task: Task | None
    since: float
    tries: int
    again: float
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is safe in the store: the log's size, and the artifact set (None where there is none)."""

    log_size: int = 0
    manifest: str | None = None
    artifacts_size: int = 0
    warnings: tuple[str, ...] = ()
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An attempt in hand. Times named `..._at` and `deadline` are in ticks.

    `oid`: full id of the job's blob. `gone`: no longer assigned, so nothing of it is published any more. `cancelled`:
    the task under way was asked to give up. `cause` is fixed when the first signal is sent. `failure`: why the commands
    could not start. `discarded`: nothing of it is left on this machine but what is remembered here. `started_known` and
    `ended_known`: the remote has the event. `gpus`: indices of those it was given when it was begun.
    """

    attempt: Attempt
    job: Job
    oid: str
    phase: Phase = Phase.WAITING
    task: Task | None = None
    gone: bool = False
    cancelled: bool = False
    times: Times = field(default_factory=Times)
    deadline: float | None = None
    cause: Cause | None = None
    term_at: float | None = None
    kill_at: float | None = None
    exit: Exit | None = None
    failure: Failure | None = None
    trouble: Trouble | None = None
    ended: Ended | None = None
    started_known: bool = False
    ended_known: bool = False
    discarded: bool = False
    gpus: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """`<job>.<attempt>`."""
        return self.attempt.key

    @property
    def at_work(self) -> bool:
        """Whether it takes up room: from preparation until its processes have ended."""
        return self.phase in (Phase.PREPARING, Phase.RUNNING)
