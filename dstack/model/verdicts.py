"""How a run stands, in the words that a forge is told: one of few states, and the rest of a sentence."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from dstack.model.job import Reason
from dstack.model.lines import RunLine
from dstack.model.status import Status

# Not the fault of the code.
_ERRORS = frozenset({Reason.INVALID, Reason.SIGNATURE, Reason.REJECTED, Reason.INTERNAL, Reason.LOST})


class State(StrEnum):
    """How a commit stands with a workflow; each forge has its own words."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more is expected."""
        return self not in (State.PENDING, State.RUNNING)


_ENDINGS: Mapping[Status | None, tuple[State, str]] = {
    Status.STOPPED: (State.CANCELLED, "was stopped"),
    Status.SKIPPED: (State.CANCELLED, "was stopped"),
    Status.ABORTED: (State.CANCELLED, "was aborted"),
    Status.STOPPING: (State.RUNNING, "is being stopped"),
    Status.ABORTING: (State.RUNNING, "is being stopped"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A run as it is told: its line, with what heartbeats say. `metrics` maps jobs to their files, where they have any.

    `folders` maps those jobs to their working folder.
    """

    line: RunLine
    running: frozenset[str] = frozenset()
    metrics: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    link: str = ""


def verdict(told: Told) -> tuple[State, str]:
    """How a run stands, and the rest of a sentence that begins with its name."""
    line = told.line
    if line.status is Status.DONE:
        return State.SUCCESS, f"is done: {_counted(len(line.jobs))}"
    if line.status is Status.FAILED:
        return (State.ERROR if line.reason in _ERRORS else State.FAILURE), _failure(line)
    if line.status in _ENDINGS:
        return _ENDINGS[line.status]
    if told.running:
        return State.RUNNING, "is running"
    return State.PENDING, "waits to be run"


def _failure(line: RunLine) -> str:
    failed = [job for job in line.jobs if job.status is Status.FAILED]
    if not failed:
        return f"failed: {line.message or line.reason or 'it never began'}"
    code = f"exit code {failed[0].exit_code}" if failed[0].exit_code else str(failed[0].reason)
    return f"failed: {failed[0].title} ({code}), {len(failed)} of {_counted(len(line.jobs))}"


def _counted(jobs: int) -> str:
    return "1 job" if jobs == 1 else f"{jobs} jobs"
