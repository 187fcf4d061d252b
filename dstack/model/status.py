"""The words for the state of a job or run (DESIGN section 6)."""

from enum import StrEnum


class Status(StrEnum):
    """The state of a job or of a run."""

    SUBMITTED = "SUBMITTED"
    QUEUED = "QUEUED"
    ASSIGNED = "ASSIGNED"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    ABORTING = "ABORTING"
    DONE = "DONE"
    FAILED = "FAILED"
    STOPPED = "STOPPED"
    ABORTED = "ABORTED"
    SKIPPED = "SKIPPED"

    @property
    def finished(self) -> bool:
        """Whether this state is never left (but for a resume)."""
        return self in _FINISHED


_FINISHED = frozenset({Status.DONE, Status.FAILED, Status.STOPPED, Status.ABORTED, Status.SKIPPED})
