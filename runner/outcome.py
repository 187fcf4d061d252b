"""What became of an attempt: from all that is known of it, the claim that its runner reports. Pure."""

from datetime import datetime
from typing import NamedTuple

from dstack.model.events import Ended, Started, Times
from dstack.model.job import Reason
from dstack.model.status import Status
from dstack.model.units import duration_text
from runner.executor import Exit
from runner.held import Cause, Failure, Held, Kept

MESSAGE_LIMIT = 2_000
WARNINGS_LIMIT = 50


class Verdict(NamedTuple):
    """How it ended."""

    status: Status
    reason: Reason
    message: str = ""


_CAUSES = {
    Cause.ABORT: Verdict(Status.ABORTED, Reason.ABORTED, "aborted"),
    Cause.STOP: Verdict(Status.STOPPED, Reason.STOPPED, "stopped"),
    Cause.INTERRUPT: Verdict(Status.FAILED, Reason.INTERRUPTED, "its runner was shut down"),
}


def verdict_of(held: Held) -> Verdict:
    """How the commands ended, whatever becomes of the artifacts.

    A cause counts where it came before the end: an attempt that had ended by itself keeps its real outcome, but abort.
    """
    if held.cause is Cause.TIMEOUT:
        return Verdict(
            Status.FAILED, Reason.TIMEOUT, f"did not end within its timeout of {duration_text(held.job.timeout or 0)}"
        )
    if held.cause is not None:
        return _CAUSES[held.cause]
    if held.failure is not None:
        return Verdict(Status.FAILED, held.failure.reason, held.failure.message)
    return (
        _of_exit(held.exit) if held.exit else Verdict(Status.FAILED, Reason.INTERNAL, "it ended without an exit code")
    )


def claim(held: Held, kept: Kept, now: datetime) -> Ended:
    """The event that reports it. `seq` is 0: it is given when the line is written."""
    verdict = _with_uploads(verdict_of(held), kept.failure)
    aborted = verdict.status is Status.ABORTED
    exit_ = held.exit or Exit(exit_code=None)
    return Ended(
        seq=0,
        at=now,
        message=verdict.message[:MESSAGE_LIMIT],
        attempt=held.attempt.attempt,
        instance=held.attempt.instance,
        nonce=held.attempt.nonce,
        status=verdict.status,
        reason=verdict.reason,
        exit_code=exit_.exit_code,
        signal=exit_.signal,
        oom=exit_.oom,
        times=_times(held.times, now),
        log=held.attempt.log,
        log_size=kept.log_size,
        manifest=None if aborted else kept.manifest,
        artifacts_size=0 if aborted else kept.artifacts_size,
        image=exit_.image,
        usage=exit_.usage,
        warnings=tuple(text[:MESSAGE_LIMIT] for text in (*exit_.warnings, *kept.warnings)[:WARNINGS_LIMIT]),
    )


def beginning(held: Held) -> Started:
    """The event that says its commands run. `seq` is 0, as above."""
    at = held.times.running or held.times.ended
    if at is None:
        msg = f"{held.key} has not started"
        raise ValueError(msg)
    attempt = held.attempt
    return Started(
        seq=0, at=at, attempt=attempt.attempt, instance=attempt.instance, nonce=attempt.nonce, log=attempt.log
    )


def notice(held: Held) -> str:
    """The last line of the log, where the user can't know it from the commands' own output; else empty."""
    verdict = verdict_of(held)
    if held.exit is not None and verdict.reason in (Reason.OK, Reason.EXIT):
        return ""
    return (
        f"{verdict.reason}: {verdict.message}" if verdict.message not in ("", verdict.reason) else f"{verdict.reason}"
    )


def _of_exit(exit_: Exit) -> Verdict:
    if exit_.reason not in (None, Reason.OK):
        return Verdict(Status.FAILED, exit_.reason, exit_.message)
    if exit_.oom and exit_.exit_code != 0:
        return Verdict(Status.FAILED, Reason.OOM, exit_.message or "ran out of memory")
    if exit_.exit_code == 0:
        return Verdict(Status.DONE, Reason.OK, exit_.message)
    how = f"ended by signal {exit_.signal}" if exit_.signal else f"exit code {exit_.exit_code}"
    return Verdict(Status.FAILED, Reason.EXIT, exit_.message or how)


def _with_uploads(verdict: Verdict, failure: Failure | None) -> Verdict:
    """A job whose artifacts are lost isn't done. One that failed anyway keeps its own reason."""
    if failure is None or verdict.status is Status.ABORTED:
        return verdict
    if verdict.status is Status.DONE:
        return Verdict(Status.FAILED, failure.reason, failure.message)
    return verdict._replace(message=f"{verdict.message}; and {failure.message}")


def _times(times: Times, now: datetime) -> Times:
    return Times(preparing=times.preparing, running=times.running, uploading=times.uploading, ended=now)
