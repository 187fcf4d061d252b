"""What an attempt comes to by the work on it, whatever goes wrong there, as a fact for the attempt."""

import logging
from collections.abc import Callable
from dataclasses import replace

from dstack.model.errors import Invalid
from dstack.model.job import Reason
from dstack.model.world import Moment
from runner import facts
from runner.cancelling import Cancelled
from runner.discretion import Discretion
from runner.executor import StartFailed
from runner.held import Failure, Held, Kept
from runner.preparing import HeldUp

LOG = logging.getLogger(__name__)

Fact = Callable[[Held, Moment], Held]

SEE_LOG = "the log of the runner says more; please report it"


def outcome(held: Held, work: Callable[[], Fact], failed: Callable[[Failure], Fact], discretion: Discretion) -> Fact:
    """What an attempt comes to by work on it; `failed` makes a fact of a failure. Raises nothing."""
    try:
        return work()
    except Cancelled:
        return facts.gave_up
    except HeldUp as pause:
        LOG.warning("%s waits: %s", held.key, discretion.hide(held)(str(pause)))
        failure, error = replace(pause.failure, message=discretion.hide(held)(str(pause))), pause.__cause__
        return lambda one, now: facts.held_up(one, failure, now, error)
    except StartFailed as error:
        return failed(Failure(reason=error.reason, message=discretion.hide(held)(str(error))))
    except Invalid as error:
        return failed(Failure(reason=Reason.INVALID, message=discretion.hide(held)(str(error))))
    except Exception as error:
        LOG.exception("%s failed by an error of dstack's own", held.key)
        text = discretion.hide(held)(f"an error of dstack's own: {type(error).__name__}: {error}; {SEE_LOG}")
        return failed(Failure(reason=Reason.INTERNAL, message=text))


def not_prepared(failure: Failure) -> Fact:
    """Its commands were never begun."""
    return lambda held, now: facts.not_prepared(held, failure, now)


def not_kept(failure: Failure) -> Fact:
    """Its log and artifacts are lost."""
    return lambda held, now: facts.kept(held, Kept(failure=failure), now)


def left(failure: Failure) -> Fact:
    """It is tried again, and at the latest by the next start."""
    LOG.warning("something of an attempt could not be removed yet: %s", failure.message)
    return lambda held, now: facts.held_up(held, failure, now)


def discarded(held: Held, _now: Moment) -> Held:
    """Nothing is left of it."""
    return facts.discarded(held)
