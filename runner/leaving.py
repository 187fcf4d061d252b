"""How a runner ends: what it waits for before it does. Pure."""

from dataclasses import dataclass, replace
from enum import StrEnum

from dstack.model.pool import Phase, RunnerState
from runner.duty import Duty
from runner.held import Held
from runner.registering import Standing, Step

GOODBYE_SECONDS = 5.0
HANDBACK_SECONDS = 30.0
DEAD_SECONDS = 30.0


class Way(StrEnum):
    """How.

    DRAIN: finish what has begun, and give back what has not. LEAVE: leave the attempts running. STOP: interrupt and
    report them. DROP, because the name is another's: kill and drop them.
    """

    DRAIN = "drain"
    LEAVE = "leave"
    STOP = "stop"
    DROP = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """Times in ticks; `goodbye`: since when only the registration is left to be written."""

    way: Way
    since: float
    goodbye: float | None = None

    def deadline(self) -> float | None:
        """When it ends at the latest; None while attempts are to be ended first."""
        if self.goodbye is not None:
            return self.goodbye + GOODBYE_SECONDS
        return {Way.LEAVE: self.since + GOODBYE_SECONDS, Way.DROP: self.since + DEAD_SECONDS}.get(self.way)

    def is_ready(self, duty: Duty, now: float) -> bool:
        """Whether no attempt is to be waited for any more."""
        deadline = self.deadline()
        if deadline is not None and now >= deadline:
            return True
        if self.way is Way.LEAVE:
            return not any(held.ended and not is_settled(held) for held in duty.held.values())
        if self.way is Way.DRAIN and now >= self.since + HANDBACK_SECONDS:
            # A controller that is away takes nothing back; that it hasn't begun is told by `gone`.
            return has_let_go(duty, self.way)
        return is_free(duty)


def asked(before: Leaving | None, way: Way, now: float) -> Leaving:
    """After being asked to end in some way: asked again, the first moment counts; who ends already doesn't drain."""
    if before is not None and way in (Way.DRAIN, before.way):
        return before
    return Leaving(way=way, since=now)


def recalled(before: Leaving | None) -> Leaving | None:
    """After being asked to stay: only a drain can be taken back, and not when it has come to the goodbye."""
    drains = before is not None and before.way is Way.DRAIN and before.goodbye is None
    return None if drains else before


def announced(leaving: Leaving | None, duty: Duty) -> RunnerState:
    """What to announce. `gone` only where nothing is left in hand."""
    if leaving is None:
        return RunnerState.LIVE
    if leaving.goodbye is not None and has_let_go(duty, leaving.way):
        return RunnerState.GONE
    return RunnerState.DRAINING if leaving.way in (Way.DRAIN, Way.STOP) else RunnerState.LIVE


def is_over(leaving: Leaving, duty: Duty, standing: Standing, now: float, *, registered: bool) -> bool:
    """Whether the goodbye was heard, or is no longer waited for."""
    told = standing.step is Step.STAND and standing.wanted.state is RunnerState.GONE
    late = now >= (leaving.deadline() or 0.0)
    return told or late or not has_let_go(duty, leaving.way) or not registered


def is_settled(held: Held) -> bool:
    """Whether there is nothing left to do about it but to wait for the controller."""
    return held.ended_known or (held.gone and held.discarded)


def is_free(duty: Duty) -> bool:
    """Whether nothing is in hand any more."""
    return all(is_settled(held) for held in duty.held.values())


def has_let_go(duty: Duty, way: Way) -> bool:
    """Whether `gone` may be said: nothing is in hand, or only what a draining runner has never begun."""
    return all(is_settled(held) or (way is Way.DRAIN and held.phase is Phase.WAITING) for held in duty.held.values())


def dropped(duty: Duty) -> Duty:
    """Everything in hand as if it were no longer assigned."""
    return replace(duty, held={key: replace(held, gone=True) for key, held in duty.held.items()})
