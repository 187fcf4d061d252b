"""The process executor with real processes: output, exit codes, environment, what cannot start."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.job import Reason
from runner import frames as runner_frames
from runner.executor import Exit, Launch, StartFailed
from runner.frames import STDERR, STDOUT, SYSTEM
from runner.process import ProcessExecutor
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
