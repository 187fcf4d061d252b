"""What happens at a real terminal: questions, and each answer to them, ^C among them."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.calls import Desk, desk
from tests.terminal import END_OF_INPUT, INTERRUPT, PATIENCE, Terminal, terminal

SLOW = """\
workflows:
  - name: slow
    commands: |
      trap 'exit 5' TERM
      echo begun
      for i in $(seq 300); do sleep 0.1 || true; done
    stop-grace: 2s
"""


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    made = desk(tmp_path, capfd)
    made.write(".dstack/workflows.yaml", SLOW)
    (made.folder / ".dstack/variables.yaml").unlink()
    return made


def eventually(check: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.1)


def status(at: Desk, name: str) -> str:
    return str(at.dstack("status", name, "--json").json[0]["status"])


@pytest.mark.parametrize(("keys", "code"), [("n\n", 1), (INTERRUPT, 130), (END_OF_INPUT, 130)])
def test_what_is_not_to_be_sent_is_not(at: Desk, keys: str, code: int) -> None:
    assert at.dstack("init").code == 0
    before = at.refs()
    with terminal(at.folder, "run", "slow", "-d") as screen:
        screen.expect("Send it? [Y/n]:")
        screen.press(keys)
        assert screen.end() == code
    assert ("nothing was sent" in screen.shown) == (code == 1)
    assert screen.shown.endswith("\n")
    assert at.refs() == before


@pytest.mark.parametrize(
    ("keys", "end"), [("y\n", "STOPPED"), ("n\n", "ABORTED"), (INTERRUPT, "ABORTED"), (END_OF_INPUT, "ABORTED")]
)
def test_a_local_run_is_stopped_or_aborted_as_it_is_answered(at: Desk, keys: str, end: str) -> None:
    with terminal(at.folder, "run", "slow", "--local", "--yes", "--name", "first") as screen:
        screen.expect("slow | begun")
        screen.press(INTERRUPT)
        screen.expect("Stop it and keep its artifacts?")
        screen.press(keys)
        screen.expect(f"first is {end}")
        assert screen.end() == 130
    assert screen.shown.count("Stop it and keep its artifacts?") == 1
    assert status(at, "first") == end


@pytest.mark.parametrize(
    ("keys", "said", "wanted"),
    [
        ("s\n", "first is told to stop", "STOPPING"),
        ("a\n", "first is told to abort", "ABORTING"),
        ("l\n", "first goes on", "QUEUED"),
        ("x\nl\n", "first goes on", "QUEUED"),
        (INTERRUPT, "first goes on", "QUEUED"),
        (END_OF_INPUT, "first goes on", "QUEUED"),
    ],
)
def test_a_run_is_stopped_aborted_or_left_as_it_is_answered(at: Desk, keys: str, said: str, wanted: str) -> None:
    with terminal(at.folder, "run", "slow", "--yes", "--name", "first") as screen:
        screen.expect("Waiting for one.")
        time.sleep(0.2)  # until it is followed
        screen.press(INTERRUPT)
        screen.expect("(s)top it, (a)bort it, or (l)eave it running?")
        screen.press(keys)
        screen.expect(said)
        if wanted == "QUEUED":
            assert screen.end() == 130
        eventually(lambda: status(at, "first") == wanted)


def begun_under(at: Desk, up: Terminal) -> None:
    up.expect("^C ends it.")
    assert at.dstack("run", "slow", "-d", "--name", "first").code == 0
    up.expect("attempt 1 goes to")
    with terminal(at.folder, "logs", "-f", "first") as log:
        log.expect("begun")


def test_a_second_interrupt_leaves_the_jobs_of_up_to_the_next_up(at: Desk) -> None:
    with terminal(at.folder, "up") as up:
        begun_under(at, up)
        up.press(INTERRUPT)
        up.expect("1 at work. Stop them?")
        up.press(INTERRUPT)
        assert up.end() == 0
    assert status(at, "first") == "RUNNING"
    with terminal(at.folder, "up") as up:
        up.expect("^C ends it.")
        time.sleep(2)  # until it has read what it holds
        up.press(INTERRUPT)
        up.expect("1 at work. Stop them?")
        up.press("y\n")
        assert up.end() == 0


def test_who_is_terminated_asks_nothing(at: Desk) -> None:
    with terminal(at.folder, "up") as up:
        begun_under(at, up)
        os.kill(up.process.pid, signal.SIGTERM)
        assert up.end() == 0
    assert "Stop them?" not in up.shown
