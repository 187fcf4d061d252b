"""Runs from the command line to their end: submitted, executed, followed, looked at and downloaded."""

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.calls import Desk, desk

COMMAND = (sys.executable, "-m", "cli.main")
SLOW = """\
workflows:
  - name: slow
    commands: |
      trap 'echo bye; mkdir -p out; echo kept > out/kept.txt; exit 5' TERM
      echo begun
      for i in $(seq 300); do sleep 0.1 || true; done
    artifacts: [out]
"""
FILES = """\
workflows:
  - name: make
    commands:
      - mkdir -p "out/a b/empty" && printf '\\000\\001\\377' > "out/a b/bytes.bin" && ln -s bytes.bin "out/a b/link"
      - printf '#!/bin/sh\\n' > out/tool && chmod 755 out/tool
    artifacts: [out, gone]
"""


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    return desk(tmp_path, capfd)


@contextmanager
def up(at: Desk, *args: str) -> Iterator[subprocess.Popen[str]]:
    """`dstack up` as a process of its own, ended as a user would."""
    command = [*COMMAND, "-C", str(at.folder), "up", *args]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout
    assert "runner" in process.stdout.readline()
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


def eventually(check: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.05)


def status_of(at: Desk, run: str) -> str:
    return str(at.dstack("status", run, "--json").json[0]["status"])


def test_a_local_run_from_submission_to_artifacts(at: Desk) -> None:
    answer = at.dstack("run", "train", "--local", "--name", "first", "--rows", "7")
    assert answer.code == 0, answer
    assert sorted(answer.out.splitlines()) == [
        "train[lr=0.1] | trained with 0.1",
        "train[lr=0.2] | trained with 0.2",
    ]
    assert answer.err.startswith("This sends ")
    assert "Run first: 3 jobs" in answer.err
    assert answer.err.endswith("first is DONE\n")
    (run,) = at.dstack("status", "--json").json
    assert (run["status"], run["reason"]) == ("DONE", "ok")
    assert [job["status"] for job in run["jobs"]] == ["DONE"] * 3
    one = run["jobs"][1]
    assert at.dstack("logs", one["job"]).out == "trained with 0.1\n"
    assert at.dstack("artifacts", one["job"], "--json").json == [
        {
            "job": one["job"],
            "artifact": "models",
            "file": "0.1.txt",
            "size": 2,
            "mode": "644",
            "sha256": hashlib.sha256(b"7\n").hexdigest(),
        }
    ]
    assert at.dstack("artifacts", "first", "-o", str(at.folder.parent / "out")).code == 0
    out = at.folder.parent / "out"
    assert (out / "data/rows.txt").read_text() == "1\n2\n3\n4\n5\n6\n7\n"
    assert (out / "models/0.2.txt").read_text() == "7\n"
    assert not [ref for ref in at.refs() if "/runners/" in ref or "/assignments/" in ref]


def test_a_run_that_fails(at: Desk) -> None:
    answer = at.dstack("run", "sad", "--local", "--name", "first")
    assert answer.code == 1
    assert answer.out == "sad | oh no\n"
    assert answer.err.endswith("is FAILED: exit code 3\nfirst is FAILED: exit\n")
    (run,) = at.dstack("status", "--json").json
    assert (run["status"], run["reason"], run["jobs"][0]["exit_code"]) == ("FAILED", "exit", 3)
    assert "FAILED: exit code 3" in at.dstack("status").out


def test_logs_of_a_run(at: Desk) -> None:
    assert at.dstack("run", "train", "--local", "--name", "first").code == 0
    lines = at.dstack("logs", "first").out.splitlines()
    assert lines == ["train[lr=0.1] | trained with 0.1", "train[lr=0.2] | trained with 0.2"]
    assert at.dstack("logs", "first", "--tail", "0").out == ""
    assert at.dstack("logs", "first", "--since", "1h").out.splitlines() == lines
    assert at.dstack("logs", "first", "--since", "2099-01-01").out == ""
    assert at.dstack("logs", "first", "-f").out.splitlines() == lines
    stamped = at.dstack("logs", "first", "--timestamps").out.splitlines()[0]
    assert stamped.split(" | ")[1].split("T")[0].count("-") == 2
    records = [json.loads(line) for line in at.dstack("logs", "first", "--json").out.splitlines()]
    assert [record.keys() for record in records] == [{"job", "attempt", "seq", "at", "stream", "text"}] * 2
    assert [record["text"] for record in records] == ["trained with 0.1", "trained with 0.2"]
    assert at.dstack("logs", "first", "-f", "--tail", "0").out == ""
    assert at.dstack("logs", "first", "-f", "--attempt", "1").code == 2
    assert at.dstack("logs", "first", "-f", "--since", "2099-01-01").out == ""
    assert at.dstack("logs", "first", "--attempt", "2").code == 1


def test_artifacts_come_back_with_bytes_modes_and_links(at: Desk) -> None:
    at.write(".dstack/workflows.yaml", FILES)
    (at.folder / ".dstack/variables.yaml").unlink()
    assert at.dstack("run", "make", "--local", "--name", "first").code == 0
    assert "(warning: " in at.dstack("status").out
    out = at.folder / "back"
    answer = at.dstack("artifacts", "first", "-o", "back")
    assert answer.code == 0
    assert "4 files" in answer.err or "3 files" in answer.err
    assert (out / "out/a b/bytes.bin").read_bytes() == b"\0\1\xff"
    assert os.readlink(out / "out/a b/link") == "bytes.bin"  # noqa: PTH115 (the text itself)
    assert (out / "out/a b/empty").is_dir()
    assert stat.S_IMODE((out / "out/tool").stat().st_mode) == 0o755
    assert at.dstack("artifacts", "first", "out/tool", "-o", "one").code == 0
    assert [path.name for path in (at.folder / "one/out").iterdir()] == ["tool"]
    totals = at.dstack("artifacts", "first", "--total").out.splitlines()
    assert totals[0].split() == ["ARTIFACT", "FILES", "SIZE"]
    nothing = at.dstack("artifacts", "first", "nope")
    assert (nothing.code, "no artifact matches nope" in nothing.err) == (1, True)


def test_sets_with_equal_paths_are_kept_apart(at: Desk) -> None:
    workflows = "workflows:\n- name: many\n  matrix: {n: [1, 2]}\n  commands: echo $n > n.txt\n  artifacts: [n.txt]\n"
    at.write(".dstack/workflows.yaml", workflows)
    (at.folder / ".dstack/variables.yaml").unlink()
    assert at.dstack("run", "many", "--local", "--name", "first").code == 0
    assert at.dstack("artifacts", "first", "-o", "back").code == 0
    assert sorted(path.read_text() for path in (at.folder / "back").rglob("n.txt")) == ["1\n", "2\n"]


def test_up_runs_what_is_submitted_and_says_that_it_is_there(at: Desk) -> None:
    with up(at, "--name", "home"):
        assert at.dstack("run", "hello", "--who", "you; $(id) 'x'").out == "hello | hello you; $(id) 'x'\n"
        (runner,) = at.dstack("runners", "--json").json
        assert runner.keys() == {
            "runner",
            "host",
            "status",
            "cpu",
            "memory",
            "gpus",
            "labels",
            "pause",
            "pauses",
            "unlimited",
            "volumes",
            "interruptible",
            "executors",
            "jobs",
            "updated_at",
        }
        assert (runner["runner"], runner["status"]) == ("home", "live")
        second = at.dstack("up")
        assert (second.code, "already running" in second.err) == (1, True)
        assert "controller" in at.dstack("doctor").out
    assert at.dstack("runners", "--json").json[0]["status"] == "gone"


def test_stop_ends_a_running_job_and_keeps_its_artifacts(at: Desk) -> None:
    at.write(".dstack/workflows.yaml", SLOW)
    (at.folder / ".dstack/variables.yaml").unlink()
    with up(at):
        at.dstack("run", "slow", "-d", "--name", "first")
        eventually(lambda: "begun" in at.dstack("logs", "first").out)
        answer = at.dstack("stop", "first")
        assert (answer.code, answer.out) == (0, "first is STOPPED\n")
        assert {"slow | begun", "slow | bye"} <= set(at.dstack("logs", "first").out.splitlines())
        assert at.dstack("artifacts", "first", "--json").json[0]["file"] == "kept.txt"
        at.dstack("run", "slow", "-d", "--name", "second")
        eventually(lambda: "begun" in at.dstack("logs", "second").out)
        assert at.dstack("stop", "second", "--abort").out == "second is ABORTED\n"
        assert at.dstack("artifacts", "second", "--json").json == []


def test_an_interrupted_run_goes_on_and_says_how_to_stop_it(at: Desk) -> None:
    at.write(".dstack/workflows.yaml", SLOW)
    (at.folder / ".dstack/variables.yaml").unlink()
    with up(at):
        command = [*COMMAND, "-C", str(at.folder), "run", "slow", "--name", "first"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdout.readline() == "slow | begun\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
        assert process.returncode == 130
        assert "first goes on: `dstack logs -f first` follows it, `dstack stop first` stops it" in err
        assert status_of(at, "first") == "RUNNING"
        assert at.dstack("stop", "first", "-a").code == 0


def test_an_interrupted_local_run_is_stopped(at: Desk) -> None:
    at.write(".dstack/workflows.yaml", SLOW)
    (at.folder / ".dstack/variables.yaml").unlink()
    command = [*COMMAND, "-C", str(at.folder), "run", "slow", "--local", "--name", "first"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "slow | begun\n"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "slow | bye" in out.splitlines()
    assert status_of(at, "first") == "STOPPED"


def test_an_up_that_is_interrupted_stops_what_runs(at: Desk) -> None:
    at.write(".dstack/workflows.yaml", SLOW)
    (at.folder / ".dstack/variables.yaml").unlink()
    with up(at) as process:
        at.dstack("run", "slow", "-d", "--name", "first")
        eventually(lambda: "begun" in at.dstack("logs", "first").out)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)
    assert not [ref for ref in at.dstack("runners", "--json").json if ref["status"] == "live"]


def test_up_that_is_killed_is_taken_over_by_the_next(at: Desk) -> None:
    at.write(".dstack/workflows.yaml", SLOW.replace("seq 300", "seq 15"))
    (at.folder / ".dstack/variables.yaml").unlink()
    with up(at) as process:
        at.dstack("run", "slow", "-d", "--name", "first")
        eventually(lambda: "begun" in at.dstack("logs", "first").out)
        process.kill()
        process.wait(timeout=10)
    with up(at):
        eventually(lambda: status_of(at, "first") == "DONE")
    (job,) = at.dstack("status", "first", "--json").json[0]["jobs"]
    assert job["attempt"] == 1


def test_a_reader_that_goes_away_ends_the_command_quietly(at: Desk) -> None:
    assert at.dstack("run", "train", "--local", "--name", "first").code == 0
    command = f"{sys.executable} -m cli.main -C {at.folder} status --json | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=20)
    assert done.stderr == ""


def test_a_remote_that_goes_away_in_the_middle_and_comes_back(at: Desk) -> None:
    at.write(".dstack/workflows.yaml", SLOW.replace("seq 300", "seq 20"))
    (at.folder / ".dstack/variables.yaml").unlink()
    away = at.remote.with_name("away.git")
    with up(at):
        command = [*COMMAND, "-C", str(at.folder), "run", "slow", "--name", "first"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdout.readline() == "slow | begun\n"
        at.remote.rename(away)
        time.sleep(3.5)
        away.rename(at.remote)
        _, err = process.communicate(timeout=40)
        assert (process.returncode, err.splitlines()[-1]) == (0, "first is DONE")
        assert "can't be reached" in err


ENTER = "import sys; from dstack.__main__ import main; print('entering', flush=True); sys.exit(main())"


@pytest.mark.parametrize("seconds", [0.01, 0.08, 0.16, 0.24, 0.32, 0.4, 0.5])
def test_an_interrupt_at_any_stage_leaves_all_or_nothing(at: Desk, seconds: float) -> None:
    assert at.dstack("init").code == 0
    command = [sys.executable, "-c", ENTER, "-C", str(at.folder), "run", "hello", "--name", "first"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err
    made = [ref for ref in at.refs() if "/first" in ref]
    assert len(made) in (0, 2)
    if made:
        assert "first goes on" in err
        assert status_of(at, "first") == "QUEUED"
    else:
        assert at.dstack("run", "hello", "-d", "--name", "first").code == 0
