"""The Docker executor when things go wrong: a runner that dies in the middle, strangers, and what cannot start."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dstack.model.errors import Failed, Unavailable
from dstack.model.job import Reason, Resources
from runner.container import DockerExecutor
from runner.executor import Exit, Launch, Signal, StartFailed
from runner.frames import STDERR, STDOUT
from runner.recipe import container
from tests.attempts import ended, launch, output, shows, until
from tests.docker_engine import DockerEngine, client

pytestmark = pytest.mark.docker

INSTANCE = "0f0f0f0f"


@pytest.fixture
def executor(docker_engine: DockerEngine, tmp_path: Path) -> Iterator[DockerExecutor]:
    executor = DockerExecutor(lambda: None, instance=instance(tmp_path), base_url=docker_engine.url, pauses=())
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


RUNNER = """
import sys, time
from pathlib import Path
from runner.container import DockerExecutor
from tests.attempts import launch
executor = DockerExecutor(lambda: None, instance=sys.argv[2], base_url=sys.argv[4])
executor.start(launch(Path(sys.argv[1]), sys.argv[3], job={"image": "dstack-busybox"}))
print("started", flush=True)
time.sleep(300)
"""

COUNT = """
i=0
while [ $i -lt 60 ]; do i=$((i+1)); echo "line $i"; printf "%s" "$i" >&2; sleep 0.02; done
printf end
exit 7
"""


@pytest.mark.parametrize("pause", [0.0, 0.3, 2.5])
def test_a_killed_runners_attempt_is_taken_over_whole(
    executor: DockerExecutor, docker_engine: DockerEngine, image: str, tmp_path: Path, pause: float
) -> None:
    command = [sys.executable, "-c", RUNNER, str(tmp_path), instance(tmp_path), COUNT, docker_engine.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
    one = launch(tmp_path, COUNT, job={"image": image})
    if pause:
        with (one.folder / "output").open("ab") as file:
            file.write(b"\1torn")  # as if killed while writing
    assert executor.leftovers() == (one.key,)
    assert executor.adopt(one)
    assert ended(executor, one.key).exit_code == 7
    assert output(one.folder, STDOUT) == b"".join(b"line %d\n" % number for number in range(1, 61)) + b"end"
    assert output(one.folder, STDERR) == b"".join(b"%d" % number for number in range(1, 61))


def test_a_container_created_but_never_started_is_begun_again(
    executor: DockerExecutor, docker_engine: DockerEngine, image: str, tmp_path: Path
) -> None:
    one = launch(tmp_path, "echo ran", job={"image": image})
    with client(docker_engine.url) as api:
        api.create_container(image, ["true"], name=executor._name(one.key), labels={"dstack.key": one.key})
    assert run(executor, one).exit_code == 0
    assert output(one.folder) == b"ran\n"


def test_a_second_start_adopts(
    executor: DockerExecutor, docker_engine: DockerEngine, image: str, tmp_path: Path
) -> None:
    one = launch(tmp_path, "echo once; sleep 0.5; exit 5", job={"image": image})
    executor.start(one)
    executor.start(one)
    until(shows(one, b"once"))
    executor.close()
    other = DockerExecutor(lambda: None, instance=instance(tmp_path), base_url=docker_engine.url)
    other.start(one)
    assert ended(other, one.key).exit_code == 5
    assert output(one.folder) == b"once\n"
    other.remove(one.key)
    other.close()


def test_a_strangers_container_of_that_name_is_left_alone(
    executor: DockerExecutor, docker_engine: DockerEngine, image: str, tmp_path: Path
) -> None:
    one = launch(tmp_path, "true", job={"image": image})
    with client(docker_engine.url) as api:
        api.create_container(image, ["true"], name=executor._name(one.key))
        with pytest.raises(Failed, match="taken by a container"):
            executor.adopt(one)
        with pytest.raises(StartFailed, match="taken by a container"):
            executor.start(one)
        assert api.inspect_container(executor._name(one.key))
        executor.remove(one.key)


def test_a_container_removed_by_somebody_is_lost(executor: DockerExecutor, image: str, tmp_path: Path) -> None:
    one = launch(tmp_path, "true", job={"image": image})
    one.folder.mkdir()
    executor._follow(one, executor._name(one.key), None)
    exit_ = ended(executor, one.key)
    assert (exit_.exit_code, exit_.reason) == (None, Reason.LOST)


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_an_image_without_the_shell_says_so(
    executor: DockerExecutor, docker_engine: DockerEngine, image: str, tmp_path: Path, shell: str
) -> None:
    if shell == "sh":
        with client(docker_engine.url) as api:
            image = "dstack-empty"
            api.import_image_from_data(bytes(10240), repository=image, tag="latest")
    exit_ = run(executor, launch(tmp_path, "true", job={"image": image, "shell": shell}))
    assert exit_.reason is Reason.INVALID
    assert f"has no {shell}: use an image that has it" in exit_.message


def test_a_command_that_is_not_there_is_the_jobs_own_failure(
    executor: DockerExecutor, image: str, tmp_path: Path
) -> None:
    exit_ = run(executor, launch(tmp_path, "bash", job={"image": image}))
    assert (exit_.exit_code, exit_.reason) == (127, None)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"image": "localhost:1/nothing:here"}, (Reason.IMAGE_PULL, "the registry can't be reached")),
        ({"image": "NotAllowed"}, (Reason.IMAGE_PULL, "check its name")),
        ({"working_dir": "missing"}, (Reason.INVALID, "not a folder of the repository")),
        ({"resources": Resources(cpu=4096.0)}, (Reason.INVALID, "CPUs")),
        ({"resources": Resources(memory=1024)}, (Reason.INVALID, "[Mm]emory")),
    ],
)
def test_what_cannot_start_says_why_and_leaves_nothing(
    executor: DockerExecutor, image: str, tmp_path: Path, fields: dict[str, object], told: tuple[Reason, str]
) -> None:
    reason, words = told
    one = launch(tmp_path, "true", job={"image": image, **fields})
    with pytest.raises(StartFailed, match=words) as failed:
        executor.start(one)
    assert failed.value.reason is reason
    assert executor.leftovers() == ()


def test_stopped_while_the_image_comes_it_is_not_started(executor: DockerExecutor, image: str, tmp_path: Path) -> None:
    one = launch(tmp_path, "true", job={"image": image})
    executor._starting[one.key] = Signal.KILL
    with pytest.raises(StartFailed) as failed:
        executor._start(one)
    assert failed.value.reason is Reason.ABORTED
    assert executor.leftovers() == ()


def test_absolute_artifacts_come_out(executor: DockerExecutor, image: str, tmp_path: Path) -> None:
    script = (
        "mkdir -p /data/out/empty /data/out/sub; echo model > /data/out/sub/model; chmod 751 /data/out/sub/model;"
        "ln -s sub/model /data/out/link; ln -s /etc/passwd /data/out/away; ln /data/out/sub/model /data/out/hard;"
        "mkfifo /data/out/pipe; echo alone > /data/alone; chmod 500 /data/out/sub"
    )
    one = launch(tmp_path, script, job={"image": image})
    run(executor, one)
    assert executor.export(one.key, "/data/out", tmp_path / "got" / "out")
    assert executor.export(one.key, "/data/alone", tmp_path / "alone")
    assert not executor.export(one.key, "/data/none", tmp_path / "none")
    got = tmp_path / "got" / "out"
    assert {str(path.relative_to(got)) for path in got.rglob("*")} == {
        "empty", "sub", "sub/model", "link", "away", "hard"
    }  # fmt: skip
    assert (got / "sub/model").read_text() == (got / "hard").read_text() == "model\n"
    assert (got / "sub/model").stat().st_mode & 0o777 == 0o751
    assert (got / "away").readlink() == Path("/etc/passwd")
    assert (tmp_path / "alone").read_text() == "alone\n"


def test_a_path_that_would_leave_the_checkout_is_refused(executor: DockerExecutor, image: str, tmp_path: Path) -> None:
    one = launch(tmp_path, "true", job={"image": image, "working_dir": "../.."})
    with pytest.raises(StartFailed, match="leads out of the repository"):
        executor.start(one)


def test_without_an_engine_it_says_so(tmp_path: Path) -> None:
    executor = DockerExecutor(lambda: None, instance=INSTANCE, base_url=f"unix://{tmp_path}/none")
    with pytest.raises(Unavailable, match="Docker can't be reached: there is no Docker engine at"):
        executor.leftovers()
    executor.close()


OTHER_USER = """
import os, sys
from pathlib import Path
import getpass, encodings.idna
from runner.container import DockerExecutor
from runner.sweep import remove
from tests.attempts import ended, launch, shows, until
url, folder, instance, user = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
DockerExecutor(lambda: None, instance=instance, base_url=url).close()  # imports what it needs, while we may read it
os.setgroups([])
os.setgid(user)
os.setuid(user)
script = "umask 077; mkdir -p a/b; echo private > a/b/c; echo more > /data/in; id -u; ln -s /etc/passwd a/away"
script += "; mkdir -p shut/in; echo x > shut/in/x; chmod 000 shut/in shut; chmod 500 a/b"
one = launch(folder, script, job={"image": "dstack-busybox"}, mounts={"/data": folder / "0123456789ab.1" / "data"})
(one.folder / "data").mkdir(parents=True)
executor = DockerExecutor(lambda: None, instance=instance, base_url=url)
executor.start(one)
assert ended(executor, one.key).exit_code == 0
assert (one.tree / "a/b/c").read_text() == "private\\n"
assert (one.folder / "data" / "in").read_text() == "more\\n"
executor.remove(one.key)
print(executor.leftovers())
mounts = {"/data": folder / "b.1" / "data"}
left = launch(folder, script + "; echo ready; sleep 600", key="b.1", job={"image": "dstack-busybox"}, mounts=mounts)
(left.folder / "data").mkdir(parents=True)
executor.start(left)
until(shows(left, b"ready"))
executor.close()
executor = DockerExecutor(lambda: None, instance=instance, base_url=url)
executor.remove(left.key)
print(executor.leftovers())
executor.close()
for tree in (one.tree, left.tree, left.folder):
    remove(tree)
    print(tree.exists())
"""


def test_a_runner_that_is_not_root_can_read_what_root_wrote(
    docker_engine: DockerEngine, image: str, tmp_path: Path
) -> None:
    assert image
    nobody = 65534
    docker_engine.folder.chmod(0o711)
    (docker_engine.folder / "socket").chmod(0o666)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chown(folder, nobody, nobody)
        command = [sys.executable, "-c", OTHER_USER, docker_engine.url, folder, instance(tmp_path), str(nobody)]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "()\n()\nFalse\nFalse\nFalse\n"), done.stderr


def test_gpus_are_asked_of_an_engine_by_index_and_one_without_says_what_it_needs(
    executor: DockerExecutor, image: str, tmp_path: Path
) -> None:
    one = replace(launch(tmp_path, "true", job={"image": image}), gpus=(0, 2))
    asked = container(one, "x", image, "y")
    assert (asked.gpus, container(launch(tmp_path, "true", key="0123456789ab.2"), "x", image, "y").gpus) == ((0, 2), ())
    with pytest.raises(StartFailed, match="install the NVIDIA Container Toolkit"):
        executor.start(one)
