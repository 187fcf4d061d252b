"""Ending processes: whoever hides, whoever saves its work first, and at any moment."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import processes
from runner.executor import Exit, Launch, Signal
from runner.frames import STDOUT
from runner.process import ProcessExecutor
from runner.shim import kernel
from tests.attempts import ended, launch, output, shows, until

INSTANCE = f"0f0f0f0f{os.getpid():x}"  # the workers of one test session leave one another alone


@pytest.fixture
def executor() -> Iterator[ProcessExecutor]:
    executor = ProcessExecutor(lambda: None, instance=INSTANCE)
    yield executor
    for key in executor.leftovers():
        executor.remove(key)
    executor.close()


def run(executor: ProcessExecutor, one: Launch) -> Exit:
    executor.start(one)
    return ended(executor, one.key)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids(folder: Path) -> list[int]:
    return [int(line) for line in output(folder, STDOUT).split()]


def test_what_runs_in_the_background_ends_with_the_commands(executor: ProcessExecutor, tmp_path: Path) -> None:
    one = launch(tmp_path, "(setsid sh -c 'echo $$; exec sleep 300' &) ; sleep 300 & echo $!; sleep 0.2; exit 6")
    started = time.monotonic()
    assert run(executor, one).exit_code == 6
    assert time.monotonic() - started < 5
    assert len(pids(one.folder)) == 2
    assert not any(alive(pid) for pid in pids(one.folder))


ESCAPE = """
import os, signal, sys, time
def saved(*_):
    time.sleep(0.3)
    print("saved", sys.argv[1], flush=True)
    os._exit(0)
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
signal.signal(signal.SIGTERM, saved)
print("ready", flush=True)
time.sleep(300)
"""


def test_term_reaches_every_process_and_leaves_it_its_grace(executor: ProcessExecutor, tmp_path: Path) -> None:
    (tmp_path / "escape.py").write_text(ESCAPE)
    start = f"{sys.executable} {tmp_path}/escape.py"
    one = launch(tmp_path, f"{start} 1\n{start} 2\nsleep 300\necho went on")
    executor.start(one)
    until(lambda: one.folder.joinpath("output").exists() and output(one.folder).count(b"ready") == 2)
    executor.signal(one.key, Signal.TERM)
    exit_ = ended(executor, one.key)
    assert exit_.exit_code == 143
    assert {b"saved 1", b"saved 2"} <= set(output(one.folder).splitlines())
    assert b"went on" not in output(one.folder)


def test_the_shell_waits_for_a_child_that_saves_its_work(executor: ProcessExecutor, tmp_path: Path) -> None:
    child = "sh -c 'trap \"sleep 0.3; echo saved; exit 0\" TERM; echo ready; while :; do sleep 0.1; done'"
    one = launch(tmp_path, f"{child}\necho went on")
    executor.start(one)
    until(shows(one, b"ready"))
    executor.signal(one.key, Signal.TERM)
    assert ended(executor, one.key).exit_code == 143
    assert output(one.folder, STDOUT).splitlines() == [b"ready", b"saved"]


def test_who_ignores_term_is_killed_when_the_grace_is_over_even_without_a_runner(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    one = launch(
        tmp_path, "sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.1; done' & sleep 300", job={"stop_grace": 0.5}
    )
    executor.start(one)
    until(shows(one, b"\n"))
    executor.signal(one.key, Signal.TERM)
    assert ended(executor, one.key, 5).exit_code == 143
    assert not any(alive(pid) for pid in pids(one.folder))


def test_kill_leaves_nobody(executor: ProcessExecutor, tmp_path: Path) -> None:
    (tmp_path / "escape.py").write_text(ESCAPE.replace('"ready"', "os.getpid()"))
    breed = "spawn() { while :; do sleep 300 & echo $!; sleep 0.01; done; }; spawn"
    one = launch(tmp_path, f"trap '' TERM INT HUP; {sys.executable} {tmp_path}/escape.py 1; {breed}")
    executor.start(one)
    until(lambda: one.folder.joinpath("output").exists() and len(pids(one.folder)) > 20)
    executor.signal(one.key, Signal.KILL)
    exit_ = ended(executor, one.key, 5)
    assert (exit_.exit_code, exit_.signal) == (137, 9)
    assert not any(alive(pid) for pid in pids(one.folder))


@pytest.mark.parametrize("how", list(Signal))
def test_a_signal_at_the_very_start_is_not_lost(executor: ProcessExecutor, tmp_path: Path, how: Signal) -> None:
    for number in range(8):
        one = launch(tmp_path, "sleep 300", key=f"{number}.1")
        executor.start(one)
        time.sleep(number * 0.003)
        executor.signal(one.key, how)
        assert ended(executor, one.key, 5).exit_code in (143, 137)


def test_a_signal_after_the_end_is_no_error(executor: ProcessExecutor, tmp_path: Path) -> None:
    one = launch(tmp_path, "true")
    run(executor, one)
    for how in Signal:
        executor.signal(one.key, how)
        executor.signal("never.1", how)
    executor.remove(one.key)
    executor.remove(one.key)


def test_parents_are_told_before_their_children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A shell under `set -e` whose command ends before the shell is told exits without its trap."""
    told: list[int] = []
    real = processes.signal_all

    def signal_all(root: int, pids: list[int], number: signal.Signals) -> None:
        told.extend(pids)
        real(root, pids, number)

    monkeypatch.setattr(processes, "signal_all", signal_all)
    script = tmp_path / "script"
    script.write_text("""for i in 1 2 3; do sh -c 'sh -c "sleep 60; :"; :' & done; wait; :""")
    with subprocess.Popen(["sh", str(script)]) as root:
        until(lambda: len(kernel.descendants(root.pid)) == 9)
        order = kernel.descendants(root.pid)
        parents = {pid: kernel.parent(str(pid)) for pid in order}
        processes.terminate_below(root.pid)
    assert told[: len(order)] == order
    assert all(parents[pid] == root.pid or order.index(parents[pid]) < order.index(pid) for pid in order)
