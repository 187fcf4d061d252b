"""What a shim leaves in its folder for the runner to read: who it is (`shim.json`) and how it ended (`exit.json`)."""

from pathlib import Path

from dstack.model.codec import Value, decode
from dstack.model.errors import Invalid
from dstack.model.events import Usage
from dstack.model.job import Reason
from runner import processes
from runner.executor import Exit
from runner.shim import kernel

COOKIE = "DSTACK_COOKIE"
LIMIT = 64 * 1024


class Shim(Value, frozen=True, kw_only=True):
    """A shim: process id and start time (clock ticks) in one boot; `cookie` marks the processes of its commands."""

    pid: int
    started: int
    boot: str
    cookie: str

    def open(self) -> int | None:
        """A pidfd of it; None where it runs no more."""
        return processes.open_process(self.pid, started=self.started) if self.boot == kernel.boot() else None

    def kill_leftovers(self, seconds: float) -> None:
        """Kill what its commands left behind when it is gone itself."""
        processes.kill_marked(f"{COOKIE}={self.cookie}".encode(), seconds)


class Report(Value, frozen=True, kw_only=True):
    """How the commands ended; a `signal` of 0 means none, no `reason` that the exit code says it all."""

    exit_code: int
    signal: int = 0
    cpu_seconds: float = 0.0
    memory_peak: int = 0
    reason: Reason | None = None
    message: str = ""

    def to_exit(self) -> Exit:
        """As the agent wants it."""
        return Exit(
            exit_code=self.exit_code,
            signal=self.signal or None,
            reason=self.reason,
            message=self.message,
            usage=Usage(cpu_seconds=self.cpu_seconds, memory_peak=self.memory_peak),
        )


def read_shim(folder: Path) -> Shim | None:
    """The shim that runs or ran this folder's order; None where none has begun, or its file is garbage."""
    try:
        return decode((folder / "shim.json").read_bytes(), Shim, "shim.json", limit=LIMIT)
    except (OSError, Invalid):
        return None


def read_exit(folder: Path) -> Exit | None:
    """How the commands ended; None where nothing tells."""
    try:
        return decode((folder / "exit.json").read_bytes(), Report, "exit.json", limit=LIMIT).to_exit()
    except (OSError, Invalid):
        return None
