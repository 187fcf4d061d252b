"""What a `dstack run --local` that was killed leaves is ended by the next command that has a runner."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.calls import Desk, desk
from tests.daemons import wait_until

LONG = """\
workflows:
  - name: long
    commands: echo $$ > {pid}; exec sleep 1000
  - name: hello
    commands: echo hello
"""


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    return desk(tmp_path, capfd)


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "(zombie)" not in status.read_text()


def test_a_killed_local_run_is_ended_by_the_next(at: Desk, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    at.write(".dstack/workflows.yaml", LONG.format(pid=pid))
    (at.folder / ".dstack/variables.yaml").unlink()
    command = [sys.executable, "-m", "cli.main", "-C", str(at.folder), "run", "long", "--local", "--name", "killed"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: pid.exists() and pid.read_text().endswith("\n"))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    job = int(pid.read_text())
    assert is_alive(job)
    (left,) = at.folder.glob(".git/dstack/*/local/local-*")
    assert at.dstack("run", "hello", "--local", "--name", "second").code == 0
    assert at.dstack("run", "hello", "--local", "--name", "third").code == 0
    wait_until(lambda: not is_alive(job))
    assert at.dstack("run", "hello", "--local", "--name", "fourth").code == 0
    assert not left.exists()
    assert not [ref for ref in at.refs() if ref.startswith("refs/dstack/runners/")]
