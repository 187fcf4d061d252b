"""A Docker Engine of the tests' own, started when the first test asks, shared by all workers, and stopped by the last.

Its data, socket and images are in a temporary folder; nothing is pulled from anywhere.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from docker import errors

from runner.connection import answers
from tests import docker_images

STARTED_WITHIN = 60
STOPPED_WITHIN = 30
# Without the rights to make a bridge or an overlay, an engine still runs containers.
WAYS = ((), ("--storage-driver=vfs",), ("--bridge=none",), ("--bridge=none", "--storage-driver=vfs"))


def missing() -> str | None:
    """Why no engine can be started here; None where one can."""
    if os.geteuid() != 0:
        return "only root can start a Docker engine"
    needed = {"dockerd": "docker.io", "busybox": "busybox-static"}
    absent = [package for program, package in needed.items() if shutil.which(program) is None]
    return f"not installed: apt-get install {' '.join(absent)}" if absent else None


def left_out() -> str | None:
    """Why tests with Docker are left out; None where they are not, and always under CI, where they fail instead."""
    return None if os.environ.get("CI") == "true" else missing()


def pytest_report_header() -> list[str]:
    """Say first what is left out."""
    reason = left_out()
    return [f"left out: tests marked `docker`: {reason}"] if reason else []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs Docker where it can't be."""
    out = [item for item in items if item.get_closest_marker("docker")] if left_out() else []
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


@dataclass(frozen=True, slots=True)
class DockerEngine:
    """A running engine: `url` for clients, `folder` for all it keeps."""

    url: str
    folder: Path

    def busybox(self) -> str:
        """An image with busybox alone: small, and root."""
        return self._image("dstack-busybox", docker_images.busybox)

    def python(self) -> str:
        """An image with this interpreter and its standard library, beside busybox."""
        return self._image("dstack-python", docker_images.python)

    def _image(self, name: str, build: "docker_images.Build") -> str:
        with locked(self.folder / f"{name}.lock"), client(self.url) as api:
            if not api.images(name=name):
                with tempfile.NamedTemporaryFile(suffix=".tar") as file:
                    changes = build(Path(file.name))
                    api.import_image_from_file(file.name, repository=name, tag="latest", changes=changes)
        return name


@pytest.fixture(scope="session")
def docker_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEngine]:
    """The engine, for this worker's session."""
    reason = missing()
    assert reason is None, f"Docker is needed here, and can't be started: {reason}"
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (shared / "docker.users").open("w") as users:
        with locked(shared / "docker.turn"):
            engine = found(shared / "docker.folder") or begun(shared / "docker.folder")
            fcntl.flock(users, fcntl.LOCK_SH)
        yield engine
        with locked(shared / "docker.turn"):
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # another worker still uses it
            stop(engine)
            (shared / "docker.folder").unlink()


def found(note: Path) -> DockerEngine | None:
    """The engine that another worker has started."""
    return at(Path(note.read_text())) if note.exists() else None


def begun(note: Path) -> DockerEngine:
    """A new engine. Its folder's path is short: that of a socket may have 107 bytes."""
    log = ""
    for way in WAYS:
        folder = Path(tempfile.mkdtemp(prefix="dstack-docker-", dir="/tmp"))
        engine = at(folder)
        if is_started(engine, way):
            note.write_text(str(folder))
            return engine
        log = (folder / "log").read_text(errors="replace")
        stop(engine)
    pytest.fail(f"dockerd doesn't start: {log[-2000:]}")


@contextmanager
def alone(*way: str) -> Iterator[DockerEngine]:
    """An engine of a test's own, to be stopped, hung and filled."""
    folder = Path(tempfile.mkdtemp(prefix="dstack-docker-", dir="/tmp"))
    engine = at(folder)
    try:
        assert is_started(engine, way), (folder / "log").read_text(errors="replace")[-2000:]
        yield engine
    finally:
        stop(engine)


def at(folder: Path) -> DockerEngine:
    """The engine in this folder."""
    return DockerEngine(f"unix://{folder}/socket", folder)


def is_started(engine: DockerEngine, way: Sequence[str]) -> bool:
    """Start it in this way; whether it answers."""
    folder = engine.folder
    data = () if any(option.startswith("--data-root") for option in way) else ("--data-root", f"{folder}/data")
    kept = (*data, "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid")
    alone = ("--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false")
    # Not by subprocess, which holds that who starts a process also waits for it: another worker may be the last.
    log = (os.POSIX_SPAWN_OPEN, 2, f"{folder}/log", os.O_CREAT | os.O_WRONLY, 0o644)
    argv = ["dockerd", "--host", engine.url, *kept, *alone, *way]
    pid = os.posix_spawnp("dockerd", argv, os.environ, file_actions=[log], setsid=True)
    deadline = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < deadline and os.waitpid(pid, os.WNOHANG) == (0, 0):
        with suppress(OSError, errors.DockerException):
            answers(engine.url)
            with client(engine.url) as api:
                return bool(api.ping())
        time.sleep(0.1)
    return False


def stop(engine: DockerEngine) -> None:
    """End the engine with its containers, and remove all it kept."""
    with suppress(OSError, errors.DockerException):
        answers(engine.url)
        with client(engine.url) as api:
            for container in api.containers(all=True):
                api.remove_container(container["Id"], force=True, v=True)
    with suppress(FileNotFoundError, ValueError, ProcessLookupError):
        pid = int((engine.folder / "pid").read_text())
        os.kill(pid, signal.SIGTERM)
        wait_for_end(pid)
    for mount in reversed(mounts(engine.folder)):
        subprocess.run(["umount", "--lazy", mount], check=True)
    shutil.rmtree(engine.folder)


def wait_for_end(pid: int) -> None:
    """Until the process has ended; killed when it takes too long. Its parent reaps it, which may be another worker."""
    deadline = time.monotonic() + STOPPED_WITHIN
    while not has_ended(pid):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.05)


def has_ended(pid: int) -> bool:
    """Whether it is gone with all its threads; of another worker's child, that may still have to take note of it."""
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG) != (0, 0)
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "Z" and len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
    except OSError:
        return True


def mounts(folder: Path) -> list[str]:
    """What is mounted below the folder."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [point for line in lines if (point := line.split()[1]).startswith(f"{folder}/")]


@contextmanager
def client(url: str) -> Iterator[docker.APIClient]:
    """A client of the engine."""
    api = docker.APIClient(base_url=url, version="auto", timeout=60)
    try:
        yield api
    finally:
        api.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
