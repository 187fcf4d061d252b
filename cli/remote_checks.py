"""What `doctor` says of how the state remote is reached, and how often it may be pushed to."""

import os
from contextlib import closing

from cli.checks import Check, Result
from cli.forge import forge_of
from cli.session import Seen, Session
from dstack import wakeups
from dstack.model.bucket import POLL_SECONDS, Reach, controller_pace, runner_pace
from dstack.model.errors import DstackError
from dstack.model.forge import ForgeSettings


def pace_check(session: Session, seen: Seen) -> Check:
    """How soon daemons see and tell what is new; on a forge that throttles, why that takes so long."""
    reach = session.remote.reach
    polls = f"daemons look every {POLL_SECONDS[reach]:g} s"
    if reach is Reach.FORGE or seen.settings.throttle:
        why = "throttle: forge in the shared settings" if seen.settings.throttle else "the forge throttles pushes"
        runner, controller = runner_pace(Reach.FORGE)[0], controller_pace(Reach.FORGE)[0]
        text = f"{why}: {polls}, a runner pushes every {runner:g} s at most, a controller every {controller:g} s; "
        return Check(name="pace", result=Result.GOOD, text=text + "a state remote of its own is faster")
    here = "or when its files change, " if reach is Reach.LOCAL else ""
    return Check(name="pace", result=Result.GOOD, text=f"{polls}, {here}and push at most {_often(reach)} a second")


def forge_check(session: Session, settings: ForgeSettings) -> Check:
    """The forge that runs are reported to takes our token. Runs don't need it."""
    try:
        with closing(forge_of(session.code.url, settings, session.remote.context(session.place))) as forge:
            said = forge.check()
    except DstackError as error:
        return Check(name="forge", result=Result.ODD, text=f"runs can't be reported: {error}")
    return Check(name="forge", result=Result.GOOD, text=said)


def wakeups_check(seen: Seen, url: str) -> Check:
    """The controller tells us of changes. Without it everything goes on by polling."""
    try:
        token = wakeups.token_of(os.environ)
    except DstackError as error:
        return Check(name="wake-ups", result=Result.ODD, text=str(error))
    if not token:
        text = f"{url} could tell of changes at once: set {wakeups.TOKEN} to its token; until then they are polled for"
        return Check(name="wake-ups", result=Result.ODD, text=text)
    why = wakeups.check(url, seen.known_repository(), token)
    if why:
        return Check(name="wake-ups", result=Result.ODD, text=f"{why}; until then changes are polled for")
    return Check(name="wake-ups", result=Result.GOOD, text=f"{url} tells of changes at once")


def _often(reach: Reach) -> str:
    times = 1 / runner_pace(reach)[0]
    return "once" if times == 1 else f"{times:g} times"
