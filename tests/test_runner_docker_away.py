"""An engine that is stopped, hangs, or has a full disk: what runs goes on or is told, and the runner with it."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dstack.model.errors import Unavailable
from dstack.model.job import Reason
from runner.container import DockerExecutor
from runner.executor import StartFailed
from runner.frames import STDERR, STDOUT
from tests import docker_engine
from tests.attempts import ended, launch, output, shows, until
from tests.docker_engine import DockerEngine, alone
from tests.pool import pool

pytestmark = pytest.mark.docker

COUNT = 'i=0; while [ $i -lt 150 ]; do i=$((i+1)); echo line $i; printf "$i " >&2; sleep 0.02; done; exit 7'
LINES = b"".join(b"line %d\n" % number for number in range(1, 151))
BAR = b"".join(b"%d " % number for number in range(1, 151))


def pid_of(engine: DockerEngine) -> int:
    return int((engine.folder / "pid").read_text())


@contextmanager
def hung(engine: DockerEngine) -> Iterator[None]:
    os.kill(pid_of(engine), signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid_of(engine), signal.SIGCONT)


def end(engine: DockerEngine, number: int) -> None:
    pid = pid_of(engine)
    os.kill(pid, number)
    docker_engine.wait_for_end(pid)
    if number == signal.SIGKILL:
        # Its child ends with it, and is reaped by init; where there is none, this pid would seem alive for ever.
        (engine.folder / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)


TERM, KILL = signal.SIGTERM, signal.SIGKILL


@pytest.mark.parametrize(
    ("number", "survives", "adopted"),
    [
        (TERM, True, False),
        (TERM, True, True),
        (TERM, False, False),
        (KILL, True, False),
        (KILL, True, True),
        (KILL, False, False),
    ],
)
def test_a_restarted_engine_loses_no_line_and_no_exit_code(
    tmp_path: Path, number: int, *, survives: bool, adopted: bool
) -> None:
    way = ["--live-restore"] if survives else []
    with alone(*way) as engine:
        executor = DockerExecutor(lambda: None, instance="away", base_url=engine.url)
        one = launch(tmp_path, COUNT, job={"image": engine.busybox()})
        executor.start(one)
        until(shows(one, b"line 10\n"))
        end(engine, number)
        if adopted:
            executor.close()
        assert docker_engine.is_started(engine, way)
        if adopted:
            executor = DockerExecutor(lambda: None, instance="away", base_url=engine.url)
            assert executor.adopt(one)
        exit_ = ended(executor, one.key, 40)
        executor.remove(one.key)
        executor.close()
    got, bar = output(one.folder, STDOUT), output(one.folder, STDERR)
    if survives:
        assert (exit_.exit_code, exit_.reason) == (7, None)
        assert (got, bar) == (LINES, BAR)
    else:
        assert LINES.startswith(got)
        assert BAR.startswith(bar)
        assert exit_.exit_code == 143
        assert exit_.reason is Reason.INTERRUPTED


def test_a_hung_engine_is_not_waited_for_and_its_jobs_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.connection.QUICK", 1)
    with alone() as engine:
        executor = DockerExecutor(lambda: None, instance="away", base_url=engine.url)
        one = launch(tmp_path, COUNT, job={"image": engine.busybox()})
        executor.start(one)
        until(shows(one, b"line 10\n"))
        with hung(engine):
            with pytest.raises(Unavailable, match="can't be reached"):
                executor.leftovers()
            assert executor.exited(one.key) is None
        assert ended(executor, one.key, 40).exit_code == 7
        executor.remove(one.key)
        executor.close()
    assert output(one.folder, STDOUT) == LINES


def test_a_full_disk_of_the_engine_is_told(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(data)], check=True)
    try:
        with alone(f"--data-root={data}") as engine:
            executor = DockerExecutor(lambda: None, instance="away", base_url=engine.url)
            image = engine.busybox()
            first = launch(tmp_path, "echo fine", key="a.1", job={"image": image})
            executor.start(first)
            assert ended(executor, first.key).exit_code == 0
            filler = data / "filler"
            subprocess.run(["sh", "-c", f"cat /dev/zero > {filler}"], check=False, capture_output=True)
            second = launch(tmp_path, "true", key="b.1", job={"image": image})
            with pytest.raises(StartFailed, match="free some space") as failed:
                executor.start(second)
            assert failed.value.reason is Reason.DISK_FULL
            filler.unlink()
            executor.start(second)
            assert ended(executor, second.key).exit_code == 0
            for one in (first, second):
                executor.remove(one.key)
            assert executor.leftovers() == ()
            executor.close()
    finally:
        for mount in reversed(docker_engine.mounts(data)):
            subprocess.run(["umount", "--lazy", mount], check=True)
        subprocess.run(["umount", "--lazy", str(data)], check=True)


WORKFLOWS = """
workflows:
- {name: plain, commands: [echo fine], resources: {cpu: 0.1}}
- {name: boxed, image: dstack-busybox, commands: [echo fine], resources: {cpu: 0.1}}
"""


@pytest.mark.timeout(120)
def test_a_runner_waits_for_its_engine_and_runs_processes_meanwhile(tmp_path: Path) -> None:
    with alone() as engine, pool(tmp_path, WORKFLOWS, DOCKER_HOST=engine.url) as at:
        engine.busybox()
        end(engine, TERM)
        at.start_controller()
        for name, executors in (("both", ("docker", "process")), ("only", ("docker",))):
            at.configure_runner(name, *(word for one in executors for word in ("--executor", one)))
            at.start_runner(name)
        at.start("boxed", "dstack", "run", "boxed", "--name", "boxed", "-y")
        at.dstack("run", "plain", "--name", "plain", "-y")
        at.eventually(lambda: [one["status"] for one in at.json("runners")] == ["live", "live"])
        both, only = at.json("runners")
        away = f"Docker can't be reached: there is no Docker engine at {engine.folder}/socket"
        assert (both["pause"], only["pause"][: len(away)]) == ("", away)
        assert both["pauses"]["docker"].startswith(away)
        assert "both takes no docker jobs now" in at.json("status", "boxed")[0]["jobs"][0]["message"]
        assert "live, no docker jobs: Docker can't be reached" in at.dstack("runners")
        assert docker_engine.is_started(engine, [])
        assert at.daemons["boxed"].wait(60) == 0
        at.end()
        assert (tmp_path / "only.log").read_text().count("no container is begun") == 1
