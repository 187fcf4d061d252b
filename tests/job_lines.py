"""Jobs as the commands show them."""

import msgspec

from cli.lines import JobLine, RunLine


def running(logs: str, name: str = "train") -> JobLine:
    """A job in its first attempt, whose log is at this key."""
    nothing = ("reason", "exit_code", "runner", "reused_from", "queued_at", "started_at", "finished_at", "artifacts")
    known = {"job": "0" * 12, "workflow": name, "matrix": {}, "variables": {}, "status": "RUNNING", "message": ""}
    return msgspec.convert({**dict.fromkeys(nothing), **known, "attempt": 1, "needs": (), "logs": logs}, JobLine)


def a_run(*jobs: JobLine) -> RunLine:
    """A run of these jobs that isn't finished."""
    known: dict[str, object] = {"run": "fast-rabbit-1", "root": "0" * 40, "workflow": "train", "status": "RUNNING"}
    known |= {"jobs": jobs, "tags": (), "generation": 1, "message": "", "submitted_by": "me"}
    nothing = ("reason", "submitted_at", "finished_at")
    return msgspec.convert({**dict.fromkeys(nothing), **known}, RunLine)
