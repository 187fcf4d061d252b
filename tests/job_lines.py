"""Jobs as the commands show them."""

import msgspec

from cli.lines import JobLine


def running(logs: str, name: str = "train") -> JobLine:
    """A job in its first attempt, whose log is at this key."""
    nothing = ("reason", "exit_code", "runner", "reused_from", "queued_at", "started_at", "finished_at", "artifacts")
    known = {"job": "0" * 12, "workflow": name, "matrix": {}, "variables": {}, "status": "RUNNING", "message": ""}
    return msgspec.convert({**dict.fromkeys(nothing), **known, "attempt": 1, "needs": (), "logs": logs}, JobLine)
