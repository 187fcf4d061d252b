"""The process executor with real processes: output, exit codes, signals, and its own death at any moment."""

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
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.job import Reason
from runner import frames as runner_frames
from runner.executor import Exit, Launch, Signal, StartFailed
from runner.frames import STDERR, STDOUT, SYSTEM
from runner.process import ProcessExecutor, write_order
from runner.shim import output as shim_output
from runner.shim.order import Order
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


@pytest.mark.parametrize(
    ("script", "code", "number"),
    [
        ("true", 0, None),
        ("exit 3", 3, None),
        ("nosuchcommand-1", 127, None),
        ("/etc/passwd", 126, None),
        ("false\ntouch reached", 1, None),
        ("kill -9 $$", 137, 9),
        ("kill -SEGV $$", 139, 11),
        ("sh -c 'kill -9 $$'", 137, None),
        ("kill -9 0", 137, 9),
        ("kill $PPID; kill -HUP $PPID; kill -INT $PPID; exit 4", 4, None),
        ("exec >&- 2>&-; exit 5", 5, None),
    ],
)
def test_the_exit_code_is_that_of_the_commands(
    executor: ProcessExecutor, tmp_path: Path, script: str, code: int, number: int | None
) -> None:
    one = launch(tmp_path, script)
    exit_ = run(executor, one)
    assert (exit_.exit_code, exit_.signal, exit_.reason) == (code, number, None)
    assert not (one.tree / "reached").exists()


def test_a_pipe_fails_under_bash_where_its_first_command_fails(executor: ProcessExecutor, tmp_path: Path) -> None:
    assert run(executor, launch(tmp_path, "false | true", key="a.1")).exit_code == 0
    assert run(executor, launch(tmp_path, "false | true", key="b.1", job={"shell": "bash"})).exit_code == 1


def test_output_is_kept_as_it_came(executor: ProcessExecutor, tmp_path: Path) -> None:
    one = launch(tmp_path, r"printf 'a\rb\000\377'; printf 'no newline' >&2; sleep 0.05; printf '10%%\r20%%'")
    before = time.time()
    run(executor, one)
    assert output(one.folder, STDOUT) == b"a\rb\0\xff10%\r20%"
    assert output(one.folder, STDERR) == b"no newline"
    assert all(before <= frame.at <= time.time() for frame in frames(one.folder))


def test_ten_megabytes_lose_no_byte(executor: ProcessExecutor, tmp_path: Path) -> None:
    one = launch(tmp_path, "seq 1 1400000")
    run(executor, one)
    expected = b"".join(b"%d\n" % number for number in range(1, 1400001))
    assert output(one.folder) == expected
    assert len(expected) > 10_000_000


def test_output_is_there_while_the_commands_run(executor: ProcessExecutor, tmp_path: Path) -> None:
    one = launch(tmp_path, "printf 'half a li'; sleep 60")
    executor.start(one)
    until(shows(one, b"half a li"), 5)
    assert executor.exited(one.key) is None


def test_nothing_of_the_runner_reaches_a_job(tmp_path: Path) -> None:
    surroundings = {"PATH": "/usr/bin:/bin", "HOME": "/somewhere", "AWS_SECRET_ACCESS_KEY": "x", "PYTHONPATH": "."}
    executor = ProcessExecutor(lambda: None, instance=INSTANCE, surroundings=surroundings)
    held = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(held, True)  # noqa: FBT003 - its only form
    one = launch(
        tmp_path, "env; echo files=$(ls /proc/self/fd | wc -l)", environment={"model": "a b\nc", "LANG": "de_DE"}
    )
    run(executor, one)
    os.close(held)
    executor.close()
    lines = output(one.folder).decode().splitlines()
    names = {line.partition("=")[0] for line in lines if "=" in line}
    assert names == {"PATH", "HOME", "LANG", "model", "DSTACK_COOKIE", "PWD", "files"}
    assert {"HOME=/somewhere", "PATH=/usr/bin:/bin", "LANG=de_DE", "model=a b", "c"} <= set(lines)
    assert "files=4" in lines  # the standard three, and the folder being listed


def test_commands_read_nothing_and_have_a_session_of_their_own(executor: ProcessExecutor, tmp_path: Path) -> None:
    one = launch(tmp_path, "cat; ps -o sid= -p $$; echo $$")
    run(executor, one)
    session, pid = pids(one.folder)
    assert session == pid


def test_commands_start_in_the_working_directory(executor: ProcessExecutor, tmp_path: Path) -> None:
    one = launch(tmp_path, "pwd; touch made", job={"working_dir": "-a b"})
    (one.tree / "-a b").mkdir()
    run(executor, one)
    assert output(one.folder).decode().strip() == str(one.tree / "-a b")
    assert (one.tree / "-a b" / "made").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"working_dir": "missing"}, "'missing' is not a folder of the repository"),
        ({"working_dir": "../.."}, "leads out of the repository"),
        ({"working_dir": "link"}, "leads out of the repository"),
        ({"shell": "fish"}, "use one of bash, sh"),
    ],
)
def test_what_cannot_start_says_why(
    executor: ProcessExecutor, tmp_path: Path, fields: dict[str, object], words: str
) -> None:
    one = launch(tmp_path, "true", job=fields)
    (one.tree / "link").symlink_to("/")
    with pytest.raises(StartFailed, match=words) as failed:
        executor.start(one)
    assert failed.value.reason is Reason.INVALID


@pytest.mark.parametrize(
    ("environment", "words"), [({"a": "x\0y"}, "NUL"), ({"a": "x" * 200_000}, "Argument list too long")]
)
def test_an_impossible_environment_is_the_users_fault(
    executor: ProcessExecutor, tmp_path: Path, environment: dict[str, str], words: str
) -> None:
    one = launch(tmp_path, "true", environment=environment)
    try:
        exit_ = run(executor, one)
    except StartFailed as failed:
        exit_ = Exit(exit_code=None, reason=failed.reason, message=str(failed))
    assert exit_.reason is Reason.INVALID
    assert words in exit_.message


def test_without_a_shell_on_the_path_it_says_so(tmp_path: Path) -> None:
    executor = ProcessExecutor(lambda: None, instance=INSTANCE, surroundings={"PATH": str(tmp_path)})
    with pytest.raises(StartFailed, match="sh isn't installed on this runner"):
        executor.start(launch(tmp_path, "true"))
    executor.close()


def test_secrets_do_not_stay_on_disk(executor: ProcessExecutor, tmp_path: Path) -> None:
    one = launch(tmp_path, "echo ok", environment={"TOKEN": "hush-hush"})
    run(executor, one)
    assert all(b"hush-hush" not in path.read_bytes() for path in one.folder.iterdir())


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


def test_usage_is_measured(executor: ProcessExecutor, tmp_path: Path) -> None:
    script = f"{sys.executable} -c 'x = bytearray(60_000_000); sum(range(3_000_000))'"
    usage = run(executor, launch(tmp_path, script)).usage
    assert usage.cpu_seconds is not None
    assert usage.memory_peak is not None
    assert 0.01 < usage.cpu_seconds < 10
    assert 60_000_000 < usage.memory_peak < 200_000_000


def test_two_at_once_stay_apart(executor: ProcessExecutor, tmp_path: Path) -> None:
    both = [
        launch(tmp_path, f"echo {name}; sleep 0.2; exit {code}", key=f"{name}.1") for name, code in (("a", 3), ("b", 4))
    ]
    for one in both:
        executor.start(one)
    assert [ended(executor, one.key).exit_code for one in both] == [3, 4]
    assert [output(one.folder) for one in both] == [b"a\n", b"b\n"]


def test_the_shim_writes_what_the_runner_reads() -> None:
    assert shim_output.HEADER.format == runner_frames.HEADER.format
    assert (shim_output.STDOUT, shim_output.STDERR, shim_output.SYSTEM) == (STDOUT, STDERR, SYSTEM)


FIELD = st.binary(max_size=50).map(lambda data: data.replace(b"\0", b""))
NAME = st.binary(min_size=1, max_size=9).map(lambda data: data.replace(b"\0", b"x").replace(b"=", b"y"))


@given(FIELD, st.lists(FIELD, max_size=5), st.dictionaries(NAME, FIELD, max_size=5))
def test_an_order_survives_its_file(folder: bytes, argv: list[bytes], environment: dict[bytes, bytes]) -> None:
    order = Order("cookie", 1.5, folder, argv, environment)
    again = Order.from_bytes(order.to_bytes())
    assert vars(again) == vars(order)
