"""Whether a controller is at home: somebody who plans runs and places their jobs."""

from cli.session import Seen
from cli.terminal import clean
from dstack.model.errors import DstackError
from dstack.store import heartbeats

SENTENCE = 300


def why_nobody_decides(seen: Seen) -> str:
    """A sentence that says what to do where no controller has been seen for a lease, or none decides; else empty."""
    try:
        if one := heartbeats.home(seen.store()):
            pause = clean(one.heartbeat.pause[:SENTENCE])
            return pause and f"the controller on {clean(one.heartbeat.host)} decides nothing now: {pause}"
    except DstackError as error:
        return f"the store can't be read: {error}"
    lease = f"{seen.settings.lease:g}"
    return f"no controller has been seen for {lease} s: start one with `dstack up` (or `dstack controller`)"
