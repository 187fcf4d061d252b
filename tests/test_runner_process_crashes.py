"""The process executor when runners, shims and disks fail in the middle."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.model.job import Reason
from runner.executor import Exit, Launch, Signal
from runner.frames import STDERR, STDOUT, SYSTEM
from runner.process import ProcessExecutor, write_order
from tests.attempts import ended, frames, launch, output, shows, until

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


def test_the_end_wakes_the_runner(tmp_path: Path) -> None:
    woken = threading.Event()
    executor = ProcessExecutor(woken.set, instance=INSTANCE)
    one = launch(tmp_path, "true")
    executor.start(one)
    assert woken.wait(10)
    assert executor.exited(one.key) is not None
    executor.close()


def test_a_second_start_runs_nothing_again(executor: ProcessExecutor, tmp_path: Path) -> None:
    one = launch(tmp_path, "echo once; sleep 0.3")
    executor.start(one)
    executor.start(one)
    other = ProcessExecutor(lambda: None, instance=INSTANCE)
    other.start(one)
    assert ended(executor, one.key) == ended(other, one.key)
    other.start(one)
    assert output(one.folder) == b"once\n"
    other.close()


def test_of_three_shims_in_one_folder_one_works_and_all_know_it(tmp_path: Path) -> None:
    one = launch(tmp_path, "echo once; sleep 0.2; exit 3")
    others = [ProcessExecutor(lambda: None, instance=INSTANCE) for _ in range(3)]
    one.folder.mkdir()
    starts = [threading.Thread(target=start_blindly, args=(other, one)) for other in others]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert {ended(other, one.key).exit_code for other in others} == {3}
    assert output(one.folder) == b"once\n"
    for other in others:
        other.close()


def test_a_script_that_runs_is_not_cut_off_by_another_start(executor: ProcessExecutor, tmp_path: Path) -> None:
    one = launch(tmp_path, "echo begun; sleep 0.5\n" + "# padding\n" * 2000 + "exit 3")
    executor.start(one)
    until(shows(one, b"begun"))
    write_order(one, executor._order(one))
    (one.folder / "script").write_bytes(b"")  # what is there now is not what runs
    assert ended(executor, one.key).exit_code == 3


def start_blindly(executor: ProcessExecutor, one: Launch) -> None:
    """As two runners would that saw nothing of one another."""
    write_order(one, executor._order(one))
    executor._begin(one)


RUNNER = """
import sys, time
from pathlib import Path
from runner.process import ProcessExecutor
from tests.attempts import launch
executor = ProcessExecutor(lambda: None, instance=sys.argv[2])
executor.start(launch(Path(sys.argv[1]), sys.argv[3]))
print("started", flush=True)
time.sleep(300)
"""


def crashed_runner(folder: Path, script: str) -> None:
    """A runner of its own that starts the script and is killed."""
    command = [sys.executable, "-c", RUNNER, str(folder), INSTANCE, script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        process.send_signal(signal.SIGKILL)


COUNT = 'i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo "line $i"; printf "%s" "$i" >&2; sleep 0.01; done; exit 7'


@pytest.mark.parametrize("pause", [0.0, 0.2, 1.5])
def test_a_killed_runners_attempt_is_taken_over_whole(executor: ProcessExecutor, tmp_path: Path, pause: float) -> None:
    crashed_runner(tmp_path, COUNT)
    time.sleep(pause)
    one = launch_again(tmp_path, COUNT)
    until(lambda: executor.adopt(one), 5)
    assert ended(executor, one.key).exit_code == 7
    assert output(one.folder, STDOUT) == b"".join(b"line %d\n" % number for number in range(1, 61))
    assert output(one.folder, STDERR) == b"".join(b"%d" % number for number in range(1, 61))


def launch_again(folder: Path, script: str) -> Launch:
    return launch(folder, script)


def test_an_adopted_attempt_can_be_ended(executor: ProcessExecutor, tmp_path: Path) -> None:
    crashed_runner(tmp_path, "sleep 300")
    one = launch_again(tmp_path, "sleep 300")
    until(lambda: executor.adopt(one), 5)
    executor.signal(one.key, Signal.TERM)
    assert ended(executor, one.key).exit_code == 143


def test_what_nobody_adopts_is_found_and_removed(executor: ProcessExecutor, tmp_path: Path) -> None:
    crashed_runner(tmp_path, "echo $$; exec sleep 300")
    one = launch_again(tmp_path, "")
    until(shows(one, b"\n"))
    assert executor.leftovers() == (one.key,)
    stranger = ProcessExecutor(lambda: None, instance="another")
    assert stranger.leftovers() == ()
    stranger.close()
    executor.remove(one.key)
    assert executor.leftovers() == ()
    assert not any(alive(pid) for pid in pids(one.folder))


def test_a_killed_shim_is_noticed_and_its_commands_go_too(executor: ProcessExecutor, tmp_path: Path) -> None:
    one = launch(tmp_path, "setsid sleep 300 & echo $!; kill -9 $PPID; exec sleep 300")
    exit_ = run(executor, one)
    assert (exit_.exit_code, exit_.reason) == (None, Reason.LOST)
    assert "wrapper process ended without a report" in exit_.message
    until(lambda: not any(alive(pid) for pid in pids(one.folder)), 5)


def test_a_recycled_process_id_is_no_shim(executor: ProcessExecutor, tmp_path: Path) -> None:
    one = launch(tmp_path, "true")
    one.folder.mkdir()
    with subprocess.Popen(["sleep", "300"]) as stranger:
        text = '{"pid":%d,"started":1,"boot":"%s","cookie":"c"}'
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        (one.folder / "shim.json").write_text(text % (stranger.pid, boot))
        assert executor.adopt(one)
        assert ended(executor, one.key).reason is Reason.LOST
        executor.remove(one.key)
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("text", ["", "{", '{"pid":"x"}', "\0" * 100])
def test_a_torn_identity_is_nobody(executor: ProcessExecutor, tmp_path: Path, text: str) -> None:
    one = launch(tmp_path, "echo ran")
    one.folder.mkdir()
    (one.folder / "shim.json").write_text(text)
    assert not executor.adopt(one)


def test_where_the_disk_is_full_output_is_dropped_and_counted_and_the_exit_code_kept(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    one = launch(tmp_path, "echo first; sleep 0.5; seq 1 100000; sleep 0.5; echo last; exit 9")
    executor.start(one)
    until(shows(one, b"first"))
    shim = executor._attempts[one.key].pid
    resource.prlimit(shim, resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
    until(lambda: len(frames(one.folder)) >= 1 and executor.exited(one.key) is None)
    time.sleep(0.8)
    resource.prlimit(shim, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    exit_ = ended(executor, one.key)
    assert (exit_.exit_code, exit_.reason) == (9, Reason.DISK_FULL)
    assert "output is incomplete" in exit_.message
    assert output(one.folder).endswith(b"last\n")
    assert b"bytes of output are lost here" in output(one.folder, SYSTEM)
