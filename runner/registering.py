"""Whose name it is: what a runner does about its registration. Pure (DESIGN section 7.6)."""

from dataclasses import dataclass, replace
from enum import StrEnum

import msgspec

from dstack.model.pool import Registration, RunnerState
from dstack.model.world import Moment


class Step(StrEnum):
    """What is to be done: nothing (it stands), write it, wait, or give up for good."""

    STAND = "stand"
    WRITE = "write"
    WAIT = "wait"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """Another instance that holds the name: its last heartbeat as read (None: none), and since when it is the same."""

    instance: str
    start: str
    heartbeat: bytes | None
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where we stand. `ours`: our registration was seen or won. `why`: the sentence for a WAIT or STOP."""

    wanted: Registration
    takeover: bool = False
    ours: bool = False
    rival: Rival | None = None
    step: Step = Step.WAIT
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a poll showed: the registration under our name, and the bytes of its holder's heartbeat.

    `readable`: the heartbeat could be looked for (the store isn't away).
    """

    found: Registration | None
    heartbeat: bytes | None = None
    readable: bool = True


def judge(standing: Standing, claims: Claims, *, lease: float, now: Moment) -> Standing:
    """What to do about the registration that was found."""
    found, wanted = claims.found, standing.wanted
    if found is not None and (found.instance, found.start) == (wanted.instance, wanted.start):
        step = Step.STAND if _same(found, wanted) else Step.WRITE
        return replace(standing, ours=True, rival=None, step=step, why="")
    if standing.ours and found is not None:
        return replace(standing, step=Step.STOP, why=_displaced(found, wanted))
    if found is None or standing.takeover or found.state is RunnerState.GONE or _is_our_past(found, wanted):
        return replace(standing, rival=None, step=Step.WRITE, why="")
    return _watch(standing, found, claims, lease=lease, now=now)


def _same(found: Registration, wanted: Registration) -> bool:
    return msgspec.structs.replace(found, at=wanted.at) == wanted


def _is_our_past(found: Registration, wanted: Registration) -> bool:
    """An earlier start with the same state folder on this machine: its lock says that it has ended."""
    return (found.instance, found.host) == (wanted.instance, wanted.host)


def _watch(standing: Standing, found: Registration, claims: Claims, *, lease: float, now: Moment) -> Standing:
    """Who is silent for a lease has lost the name; who is not is left alone."""
    if not claims.readable:
        return replace(standing, rival=None, step=Step.WAIT, why="the store is away: waiting to see who has the name")
    before = standing.rival
    if before is None or (before.instance, before.start) != (found.instance, found.start):
        rival = Rival(instance=found.instance, start=found.start, heartbeat=claims.heartbeat, since=now.ticks)
        why = f"waiting up to {lease:g} s to see if {found.runner} on {found.host} is alive (--takeover doesn't wait)"
        return replace(standing, rival=rival, step=Step.WAIT, why=why)
    if claims.heartbeat != before.heartbeat:
        return replace(standing, step=Step.STOP, why=_taken(found))
    return replace(standing, step=Step.WRITE if now.ticks - before.since >= lease else Step.WAIT)


def _taken(found: Registration) -> str:
    return (
        f"the name {found.runner} belongs to a live runner on {found.host}: choose another with "
        "`dstack-runner config --name NAME`, or take it over with `dstack-runner start --takeover`"
    )


def _displaced(found: Registration, wanted: Registration) -> str:
    if found.instance == wanted.instance:
        return (
            f"a runner on {found.host} was started with a copy of this state folder and has taken the name "
            f"{found.runner}: stopping, so that no job runs twice; give one of the two a state folder of its own"
        )
    return f"the name {found.runner} was taken over by a runner on {found.host}: stopping"
