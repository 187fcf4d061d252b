"""Asks every process of a container to end: its first one alone would not pass that on."""

import os
from pathlib import Path

from runner import processes
from runner.engine import Engine
from runner.engine_values import Refused

TERM_ALL = ["sh", "-c", "kill -TERM -1"]


def terminate(engine: Engine, name: str) -> None:
    """SIGTERM to all of a container: from outside where we may, else from within."""
    state = engine.state(name)
    if state is None or state.status != "running":
        return
    if os.geteuid() == 0 and state.id in _control_groups(state.pid):
        processes.terminate_below(state.pid)
        return
    try:
        engine.execute(name, TERM_ALL)
    except Refused:
        engine.kill(name, "SIGTERM")


def _control_groups(pid: int) -> str:
    """The control groups of a process on this machine: for a container's they contain its id."""
    try:
        return Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
