"""Whether a failed attempt is followed by another, and when (DESIGN section 7.8)."""

from dstack.model.job import Job, Reason
from dstack.model.states import AttemptState, JobState

# What nobody has to ask for: trouble of the machine, not of the job.
ALWAYS = {Reason.LOST: 2, Reason.INTERRUPTED: 20}
NEVER = frozenset({Reason.STOPPED, Reason.ABORTED, Reason.DEPENDENCY})


def retries_left(job: Job, state: JobState, reason: Reason) -> int:
    """How many further attempts this reason allows, those used up in this generation taken off."""
    if reason in NEVER:
        return 0
    used = [attempt.revoked.reason for attempt in state.tried if attempt.revoked and attempt.revoked.begun]
    return max(_asked(job, used, reason), ALWAYS.get(reason, 0) - used.count(reason))


def _asked(job: Job, used: list[Reason], reason: Reason) -> int:
    retry = job.retry
    if retry is None or (retry.on and reason not in retry.on):
        return 0
    return retry.attempts - sum(1 for earlier in used if not retry.on or earlier in retry.on)


def last_revoked(state: JobState) -> AttemptState | None:
    """The attempt of this generation that a retry follows."""
    tried = state.tried
    return tried[-1] if tried and tried[-1].revoked else None
