"""The one door: exit codes, reports of our own mistakes, help without heavy imports; terminals narrow and dull."""

import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import pytest

from cli import door, main, runner_door
from cli.index import COMMANDS, RUNNER_COMMANDS
from cli.interrupts import deferred
from cli.report import redacted
from cli.terminal import clean
from dstack.model.errors import Invalid
from tests.calls import Desk, desk

HEAVY = {"pygit2", "rich", "yaml", "docker", "apscheduler", "watchfiles", "tinydb", "msgspec", "starlette", "uvicorn"}


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    return desk(tmp_path, capfd)


@pytest.mark.parametrize("module", ["cli.main", "cli.runner_door"])
def test_help_imports_nothing_heavy(module: str) -> None:
    script = f"import sys, {module} as m; m.main(['--help']); print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_controller_leaves_what_listens_to_a_process_of_its_own() -> None:
    served = {"starlette", "uvicorn", "uvloop", "httptools", "prometheus_client"}
    script = f"import sys, cli.controller, cli.up; print(sorted({served!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main.main([name, "--help"]) == 0
    assert re.search(r"Examples?:\n +dstack ", capfd.readouterr().out)


@pytest.mark.parametrize("name", RUNNER_COMMANDS)
def test_every_command_of_the_runner_too(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert runner_door.main([name, "--help"]) == 0
    assert re.search(r"Examples?:\n +dstack-runner ", capfd.readouterr().out)


def raises(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (Invalid("that is wrong: write this"), 1, "dstack: that is wrong: write this\n"),
        (KeyboardInterrupt(), 130, ""),
        (click.Abort(), 130, "\n"),
        (BrokenPipeError(), 1, ""),
    ],
)
def test_errors_become_exit_codes(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_forget_stdout", lambda: None)
    assert door.passing("dstack", lambda: raises(error)) == code
    assert capsys.readouterr().err == message


def test_a_mistake_of_ours_is_reported_in_a_file(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert door.passing("dstack", lambda: raises(ZeroDivisionError("oops"))) == 3
    err = capsys.readouterr().err
    assert "a mistake of ours, not yours: ZeroDivisionError: oops" in err
    (report,) = (home / ".local/state/dstack/reports").iterdir()
    assert str(report) in err
    assert "Traceback" in report.read_text()
    assert "Traceback" not in err


def test_a_report_goes_elsewhere_where_home_is_read_only(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert door.passing("dstack", lambda: raises(ZeroDivisionError())) == 3
    (report,) = tmp_path.glob("dstack-report-*")
    assert str(report) in capsys.readouterr().err


def test_a_report_holds_no_secrets_and_is_its_owners_alone(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_TOKEN", "abc-s3cret-of-the-user")
    told = "https://me:hunter22@host/x abc-s3cret-of-the-user password=hunter33 {'aws_secret_access_key': 'hunter44'}"
    assert door.passing("dstack", lambda: raises(ValueError(told))) == 3
    (report,) = (home / ".local/state/dstack/reports").iterdir()
    text = report.read_text() + capsys.readouterr().err
    assert [word for word in ("hunter22", "s3cret", "hunter33", "hunter44") if word in text] == []
    assert ("https://***@host/x" in text, "ValueError" in text) == (True, True)
    assert report.stat().st_mode & 0o777 == 0o600


def test_what_is_no_secret_stays_in_a_report() -> None:
    text = "File x.py, line 3: lr=0.1, a key of the store: runs/x; https://host/path"
    assert redacted(text, {"API_TOKEN": "x", "SHELL": "/bin/bash"}) == text


def interrupted(times: int, done: list[bool]) -> None:
    with deferred():
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
        done.append(True)


@pytest.mark.parametrize(("times", "finished"), [(1, [True]), (2, [])])
def test_an_interrupt_waits_until_the_push_is_over_and_a_second_does_not(times: int, finished: list[bool]) -> None:
    done: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(times, done)
    assert done == finished


def on_terminal(at: Desk, columns: int, *args: str, **environment: str) -> str:
    """What a person sees."""
    ours, theirs = pty.openpty()
    read: list[bytes] = []

    def drain() -> None:
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:  # the other side is closed: that is how a terminal ends
                return
            if not data:
                return
            read.append(data)

    reader = threading.Thread(target=drain)
    reader.start()
    command = [sys.executable, "-m", "cli.main", "-C", str(at.folder), *args]
    env = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", **environment}
    subprocess.run(command, stdout=theirs, stderr=subprocess.DEVNULL, check=True, env=env, timeout=30)
    os.close(theirs)
    reader.join(10)
    os.close(ours)
    return b"".join(read).decode()


@pytest.mark.parametrize("columns", [30, 50, 80, 200])
def test_a_table_fits_the_terminal(at: Desk, columns: int) -> None:
    at.dstack("run", "train", "-d", "--name", "a-rather-long-name-for-a-run-1")
    shown = on_terminal(at, columns, "status", NO_COLOR="1")
    assert "\x1b" not in shown
    assert all(len(line) <= columns for line in shown.splitlines())
    assert "STATUS" in shown
    assert ("USER" in shown) == (columns == 200)


def test_colour_is_for_terminals(at: Desk) -> None:
    at.dstack("run", "hello", "-d")
    assert "\x1b[" in on_terminal(at, 100, "status")
    assert "\x1b[" not in on_terminal(at, 100, "status", NO_COLOR="1")
    assert "\x1b" not in at.dstack("status").out


def test_a_runner_is_configured_and_looked_at(at: Desk, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def runner(*args: str) -> tuple[int, str]:
        capfd.readouterr()
        code = runner_door.main(["--state", str(tmp_path / "state"), *args])
        out, err = capfd.readouterr()
        return code, out + err

    assert runner("start") == (
        1,
        "dstack-runner: this runner has no state remote yet: `dstack-runner config --remote PATH`\n",
    )
    assert runner("config", "--remote", str(tmp_path / "nowhere"))[0] == 1
    assert runner("config", "--name", "controller")[0] == 1
    code, text = runner(
        "config", "--remote", str(at.remote), "--name", "big-one", "--executor", "process", "--memory", "2GiB"
    )
    assert (code, "big-one" in text, "2.0 GiB" in text) == (0, True, True)
    assert "Executors:    process" in runner("config")[1]
    assert runner("config", "--memory", "2 apples")[0] == 1
    at.dstack("init")
    assert runner("status") == (1, "big-one has not registered yet: start it with `dstack-runner start`\n")
    command = [sys.executable, "-m", "cli.runner_door", "--state", str(tmp_path / "state"), "start"]
    daemon = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 15
        while runner("status")[0] != 0:
            assert time.monotonic() < end
            time.sleep(0.1)
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        assert (second.returncode, "works with" in second.stderr) == (1, True)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.communicate(timeout=20)
    assert daemon.returncode == 0
    assert "is gone" in runner("status")[1]


def test_what_turns_the_direction_of_writing_is_shown_as_what_it_is() -> None:
    assert clean("safe\u202egpj.sh\u2066\x1b[2J\u2028é日") == "safe\\u202egpj.sh\\u2066\\x1b[2J\\u2028é日"
