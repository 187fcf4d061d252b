"""The Docker executor with a real engine: output to the byte, limits, environment, signals."""

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.model.job import Reason, Resources
from runner.container import DockerExecutor
from runner.executor import Exit, Launch, Signal
from runner.frames import STDERR, STDOUT
from tests import docker_images
from tests.attempts import ended, launch, output, shows, until
from tests.docker_engine import DockerEngine, client

pytestmark = pytest.mark.docker

INSTANCE = "0f0f0f0f"


@pytest.fixture
def executor(docker_engine: DockerEngine, tmp_path: Path) -> Iterator[DockerExecutor]:
    executor = DockerExecutor(lambda: None, instance=instance(tmp_path), base_url=docker_engine.url)
    yield executor
    for key in executor.leftovers():
        executor.remove(key)
    executor.close()


def instance(folder: Path) -> str:
    """One for each test: they share the engine."""
    return f"{INSTANCE}{abs(hash(folder)):x}"


@pytest.fixture
def image(docker_engine: DockerEngine) -> str:
    return docker_engine.busybox()


def run(executor: DockerExecutor, one: Launch) -> Exit:
    executor.start(one)
    return ended(executor, one.key)


def test_a_job_runs_on_the_checkout_and_its_result_is_kept(
    executor: DockerExecutor, image: str, tmp_path: Path
) -> None:
    script = r"pwd; cat in; printf 'a\rb\000\377' > out; printf 'x\000\377\ry'; printf 'partial' >&2; exit 3"
    one = launch(tmp_path, script, job={"image": image, "working_dir": "a b"})
    (one.tree / "a b").mkdir()
    (one.tree / "a b" / "in").write_text("given\n")
    exit_ = run(executor, one)
    assert (exit_.exit_code, exit_.signal, exit_.reason) == (3, None, None)
    assert exit_.image is not None
    assert exit_.image.startswith("sha256:")
    assert output(one.folder, STDOUT) == b"/workflow/a b\ngiven\nx\0\xff\ry"
    assert output(one.folder, STDERR) == b"partial"
    assert (one.tree / "a b" / "out").read_bytes() == b"a\rb\0\xff"


@pytest.mark.parametrize(
    ("script", "code"),
    [("true", 0), ("nosuchcommand", 127), ("/etc/passwd", 126), ("false; touch /workflow/reached", 1)],
)
def test_the_exit_code_is_that_of_the_commands(
    executor: DockerExecutor, image: str, tmp_path: Path, script: str, code: int
) -> None:
    one = launch(tmp_path, script, job={"image": image})
    assert run(executor, one).exit_code == code
    assert not (one.tree / "reached").exists()


def test_nothing_of_the_host_reaches_a_job(
    executor: DockerExecutor, image: str, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text(json.dumps({"proxies": {"default": {"httpProxy": "http://hush"}}}))
    script = "env; ls /var/run/docker.sock || true; grep NoNewPrivs /proc/self/status; id -u"
    one = launch(tmp_path, script, environment={"model": "a b\nc $(x)"}, job={"image": image})
    run(executor, one)
    lines = output(one.folder, STDOUT).decode().splitlines()
    names = {line.partition("=")[0] for line in lines if "=" in line}
    assert names == {"PATH", "HOSTNAME", "HOME", "SHLVL", "PWD", "model"} | ({"OLDPWD"} & names)
    assert {"model=a b", "c $(x)", "NoNewPrivs:\t1", "0"} <= set(lines)
    assert b"No such file" in output(one.folder, STDERR)


def test_limits_are_set(executor: DockerExecutor, image: str, tmp_path: Path, docker_engine: DockerEngine) -> None:
    resources = Resources(cpu=0.5, memory=64 * 1024**2)
    one = launch(tmp_path, "sleep 60", job={"image": image, "resources": resources})
    executor.start(one)
    with client(docker_engine.url) as api:
        found = api.inspect_container(executor._name(one.key))
    host = found["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"]) == (500_000_000, 64 * 1024**2, 64 * 1024**2)
    assert (host["ShmSize"], host["PidsLimit"], host["Init"]) == (32 * 1024**2, 16384, True)
    assert (host["Privileged"], host["NetworkMode"]) == (False, "default")
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert found["Config"]["Labels"] == {
        "dstack.run": "fast-rabbit-1",
        "dstack.attempt": one.key,
        "dstack.key": one.key,
        "dstack.instance": instance(tmp_path),
    }


def test_without_a_memory_limit_there_is_a_gigabyte_to_share(
    executor: DockerExecutor, image: str, tmp_path: Path
) -> None:
    one = launch(tmp_path, "df -k /dev/shm | tail -1", job={"image": image})
    run(executor, one)
    assert output(one.folder).split()[1] == b"1048576"


def test_more_memory_than_the_limit_is_told(
    executor: DockerExecutor, docker_engine: DockerEngine, tmp_path: Path
) -> None:
    script = "python -c 'x = bytearray(300_000_000)'"
    resources = Resources(memory=64 * 1024**2)
    exit_ = run(executor, launch(tmp_path, script, job={"image": docker_engine.python(), "resources": resources}))
    assert (exit_.exit_code, exit_.oom, exit_.reason) == (137, True, Reason.OOM)
    assert "its limit of 64MiB: raise resources.memory" in exit_.message


def test_a_child_that_is_killed_for_memory_is_the_jobs_own_affair(
    executor: DockerExecutor, docker_engine: DockerEngine, tmp_path: Path
) -> None:
    script = "python -c 'x = bytearray(300_000_000)' || echo went on"
    resources = Resources(memory=64 * 1024**2)
    one = launch(tmp_path, script, job={"image": docker_engine.python(), "resources": resources})
    exit_ = run(executor, one)
    assert (exit_.exit_code, exit_.oom, exit_.reason) == (0, False, None)
    assert b"went on" in output(one.folder)


def test_abuse_is_contained_and_ends_within_its_grace(executor: DockerExecutor, image: str, tmp_path: Path) -> None:
    script = (
        "trap '' TERM; mkdir -p deep many; d=deep; for i in $(seq 60); do d=$d/d; done; mkdir -p $d;"
        "(cd many; seq 10000 | xargs touch); for i in $(seq 200); do sleep 600 & done; echo ready; wait"
    )
    one = launch(tmp_path, script, job={"image": image})
    executor.start(one)
    until(shows(one, b"ready"))
    executor.signal(one.key, Signal.TERM)
    executor.signal(one.key, Signal.KILL)
    assert ended(executor, one.key, 10).exit_code == 137
    executor.remove(one.key)
    assert len(list((one.tree / "many").iterdir())) == 10000


def test_a_fork_bomb_meets_its_limit(
    executor: DockerExecutor, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.engine.PIDS", 50)
    one = launch(tmp_path, "bomb() { bomb | bomb & }; bomb; sleep 600", job={"image": image})
    executor.start(one)
    until(lambda: shows(one, b"an't fork")() or executor.exited(one.key) is not None)
    executor.signal(one.key, Signal.KILL)
    assert ended(executor, one.key, 10).exit_code != 0


def test_a_partial_line_shows_at_once(executor: DockerExecutor, image: str, tmp_path: Path) -> None:
    one = launch(tmp_path, "printf '10%%\\r20%%'; sleep 60", job={"image": image})
    executor.start(one)
    until(shows(one, b"10%\r20%"), 5)
    assert executor.exited(one.key) is None


def test_ten_megabytes_lose_no_byte(executor: DockerExecutor, image: str, tmp_path: Path) -> None:
    one = launch(tmp_path, "seq 1 1400000", job={"image": image})
    run(executor, one)
    assert output(one.folder) == b"".join(b"%d\n" % number for number in range(1, 1400001))


SAVE = 'trap "sleep 0.5; echo saved $1; exit 0" TERM; echo ready; while :; do sleep 0.1; done'


@pytest.mark.parametrize("inside", [False, True], ids=["from outside", "from within"])
def test_term_reaches_every_process_and_leaves_it_its_grace(
    executor: DockerExecutor, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, inside: bool
) -> None:
    script = "(setsid sh save.sh away &)\nsh save.sh background &\nsh save.sh here\necho went on"
    one = launch(tmp_path, script, job={"image": image})
    (one.tree / "save.sh").write_text(SAVE)
    if inside:  # as where the runner isn't root
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
    executor.start(one)
    until(lambda: shows(one, b"")() and output(one.folder).count(b"ready") == 3)
    executor.signal(one.key, Signal.TERM)
    exit_ = ended(executor, one.key)
    assert exit_.exit_code == 143
    lines = set(output(one.folder, STDOUT).splitlines())
    assert lines == {b"ready", b"saved away", b"saved background", b"saved here"}


@pytest.mark.parametrize("user", ["nobody", "65534:65534"])
def test_an_image_with_a_user_of_its_own_can_write_in_the_checkout(
    executor: DockerExecutor, docker_engine: DockerEngine, tmp_path: Path, user: str
) -> None:
    with client(docker_engine.url) as api, tempfile.NamedTemporaryFile(suffix=".tar") as file:
        changes = [*docker_images.busybox(Path(file.name)), f"USER {user}"]
        api.import_image_from_file(file.name, repository="dstack-nobody", tag=user.partition(":")[0], changes=changes)
    image = f"dstack-nobody:{user.partition(':')[0]}"
    one = launch(tmp_path, "id -u; echo more >> sub/data; echo made > sub/made", job={"image": image})
    (one.tree / "sub").mkdir()
    (one.tree / "sub" / "data").write_text("some\n")
    (one.tree / "away").symlink_to("/etc/passwd")
    mode = Path("/etc/passwd").stat().st_mode
    assert run(executor, one).exit_code == 0
    assert output(one.folder) == b"65534\n"
    assert (one.tree / "sub" / "data").read_text() == "some\nmore\n"
    assert Path("/etc/passwd").stat().st_mode == mode


def test_kill_ends_at_once(executor: DockerExecutor, image: str, tmp_path: Path) -> None:
    one = launch(tmp_path, "trap '' TERM; echo ready; while :; do sleep 0.1; done", job={"image": image})
    executor.start(one)
    until(shows(one, b"ready"))
    executor.signal(one.key, Signal.KILL)
    exit_ = ended(executor, one.key, 5)
    assert (exit_.exit_code, exit_.signal, exit_.reason) == (137, 9, None)
    executor.signal(one.key, Signal.TERM)
    executor.signal(one.key, Signal.KILL)


def test_the_end_wakes_the_runner_and_two_at_once_stay_apart(
    docker_engine: DockerEngine, image: str, tmp_path: Path
) -> None:
    woken = threading.Semaphore(0)
    executor = DockerExecutor(woken.release, instance=instance(tmp_path), base_url=docker_engine.url)
    both = [
        launch(tmp_path, f"echo {name}; sleep 0.2; exit {code}", key=f"{name}.1", job={"image": image})
        for name, code in (("a", 3), ("b", 4))
    ]
    starts = [threading.Thread(target=executor.start, args=(one,)) for one in both]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert woken.acquire(timeout=20)
    assert woken.acquire(timeout=20)
    assert [ended(executor, one.key, 0.1).exit_code for one in both] == [3, 4]
    assert [output(one.folder) for one in both] == [b"a\n", b"b\n"]
    assert executor.leftovers() == ("a.1", "b.1")
    for one in both:
        executor.remove(one.key)
        executor.remove(one.key)
    assert executor.leftovers() == ()
    executor.close()
