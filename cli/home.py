"""Whether a controller is at home: somebody who plans runs and places their jobs."""

from cli.session import Seen
from dstack.model.errors import DstackError
from dstack.store import heartbeats


def why_nobody_decides(seen: Seen) -> str:
    """A sentence that says what to do where no controller has been seen for a lease; empty where one has."""
    try:
        if heartbeats.home(seen.store()):
            return ""
    except DstackError as error:
        return f"the store can't be read: {error}"
    lease = f"{seen.settings.lease:g}"
    return f"no controller has been seen for {lease} s: start one with `dstack up` (or `dstack controller`)"
