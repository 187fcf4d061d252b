"""What `doctor` says of how the state remote is reached, and how often it may be pushed to."""

from contextlib import closing

from cli.checks import Check, Result
from cli.forge import forge_of
from cli.session import Seen, Session
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


def _often(reach: Reach) -> str:
    times = 1 / runner_pace(reach)[0]
    return "once" if times == 1 else f"{times:g} times"
