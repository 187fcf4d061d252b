"""The whole over a git server: state on http with a password, over ssh, as on a forge; the server goes and comes."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli import main as door
from tests.git_servers import HttpServer, SshServer, free_port, running, wait_for_port
from tests.installed import search_path
from tests.pool import Pool
from tests.repositories import bare, hook, sh, work

WORKFLOWS = """
workflows:
- name: train
  commands: ['for i in $(seq 20); do echo line $i; sleep 0.1; done; cat new.txt']
- {name: quick, commands: ['echo quick']}
- {name: slow, commands: ['echo slow; sleep 4']}
"""


class Served(Pool):
    """`server` is where the state is; `url` how everybody reaches it."""

    server: HttpServer | SshServer

    @property
    def url(self) -> str:
        return self.server.url("remote.git")

    def configure_runner(self, name: str = "runner", *options: str) -> None:
        words = ["dstack-runner", "--state", str(self.folder / f"{name}-state"), "config", "--remote", self.url]
        shown = subprocess.run(
            [*words, "--name", name, *options], cwd=self.code, env=self.environment, check=True, capture_output=True
        )
        assert b"pl4nted" not in shown.stdout + shown.stderr


@contextmanager
def served(folder: Path, server: HttpServer | SshServer, *, apart: bool, **more: str) -> Iterator[Served]:
    """`apart`: the state remote isn't the code's. No daemons yet."""
    environment = {**os.environ, "PATH": search_path(folder / "bin"), **more}
    made = Served(folder, environment)
    made.server = server
    bare(made.remote)
    work(made.code)
    (made.code / ".dstack" / "workflows.yaml").write_text(WORKFLOWS)
    sh(made.code, "add", ".")
    sh(made.code, "commit", "--quiet", "-m", "workflows")
    with running(server):
        if apart:
            made.dstack("init", "--remote", made.url)
        else:
            sh(made.code, "remote", "add", "origin", made.url)
            made.dstack("init")
        try:
            yield made
        finally:
            made.end()


@pytest.fixture(params=["http", pytest.param("ssh", marks=pytest.mark.sshd)])
def at(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    """Over http in a state remote apart, over ssh in that of the code."""
    if request.param == "http":
        with served(tmp_path, HttpServer(tmp_path), apart=True) as made:
            yield made
    else:
        ssh = SshServer(tmp_path)
        with served(tmp_path, ssh, apart=False, GIT_SSH_COMMAND=ssh.client()) as made:
            yield made


SLOW = """
import sys
from dstack.model import bucket
for reach in bucket.POLL_SECONDS:
    bucket.POLL_SECONDS[reach] = 3600.0
from cli.runner_door import main
main(sys.argv[1:])
"""


def test_with_a_controller_that_tells_of_changes_nobody_waits_for_a_poll(tmp_path: Path) -> None:
    port, token = free_port(), "a-token-of-some-length"
    with served(tmp_path, HttpServer(tmp_path), apart=False, DSTACK_CONTROLLER_TOKEN=token) as at:
        at.dstack("config", "set", "lease", "7200")
        at.dstack("config", "set", "controller_url", f"http://127.0.0.1:{port}")
        at.start("controller", "dstack", "controller", "--poll", "3600", "--http", f"127.0.0.1:{port}")
        wait_for_port(port)
        at.configure_runner("otter", "--executor", "process", "--cpu", "2")
        at.start("otter", sys.executable, "-c", SLOW, "--state", str(tmp_path / "otter-state"), "start")
        at.eventually(lambda: any(one["status"] == "live" for one in at.json("runners")))
        at.dstack("run", "quick", "-d", "--name", "run-1")
        at.eventually(lambda: at.view("run-1").state.finished is not None)
        assert at.status("run-1") == "DONE"
        assert token not in at.logs()


def planted(folder: Path, *known: str) -> list[Path]:
    """Files in which the password stands, but for those that may hold it."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in known)
    return [path for path in files if b"pl4nted" in path.read_bytes()]


def test_a_run_goes_on_where_the_git_server_is_stopped_and_started(at: Served) -> None:
    at.start("controller", "dstack", "controller", "--poll", "0.5")
    at.configure_runner("otter", "--executor", "process", "--cpu", "2")
    at.start_runner("otter")
    (at.code / "new.txt").write_text("not yet committed\n")
    at.dstack("run", "train", "-d", "--name", "run-1")
    at.eventually(lambda: "line 3" in at.dstack("logs", "run-1", expect=None))
    at.server.stop()
    time.sleep(2)
    at.server.start()
    at.eventually(lambda: at.view("run-1").state.finished is not None)
    assert at.status("run-1") == "DONE"
    log = at.dstack("logs", "run-1")
    assert [line.split("line ")[1] for line in log.splitlines() if "line " in line] == [str(n) for n in range(1, 21)]
    assert "not yet committed" in log
    assert set(at.history("run-1").values()) == {(1, 1)}
    if isinstance(at.server, HttpServer):
        credentials = at.code / ".git/dstack/credentials"
        for path in (credentials, at.folder / "otter-state/runner.json"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert planted(at.folder, "credentials", "runner.json") == []
        assert sh(at.code, "config", "dstack.remote") == at.server.plain_url("remote.git")


def test_up_and_run_on_a_remote_that_throttles_take_four_pushes(tmp_path: Path) -> None:
    server = HttpServer(tmp_path)
    with served(tmp_path, server, apart=False) as at:
        sh(tmp_path, "clone", "--quiet", "--branch=dstack/config", str(at.remote), "config")
        config = tmp_path / "config"
        with (config / "config.yaml").open("a") as file:
            file.write("throttle: forge\n")
        sh(config, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-am", "Push rarely")
        sh(config, "push", "--quiet", "origin", "HEAD")
        at.start("up", "dstack", "up", "--name", "otter")
        at.eventually(lambda: any(one["status"] == "live" for one in at.json("runners")))
        counted = tmp_path / "pushes"
        hook(at.remote, "pre-receive", f"cat > /dev/null; echo push >> {counted}")
        at.dstack("run", "slow", "--name", "run-1", "-d")
        at.eventually(lambda: at.status("run-1") == "RUNNING")
        (job,) = at.view("run-1").state.jobs.values()
        assert job.attempts[-1].started is None, "it is shown by the sign of life: no push is spent on it"
        assert "slow" in at.dstack("logs", "-f", "run-1")
        at.eventually(lambda: at.view("run-1").state.finished is not None)
        assert at.status("run-1") == "DONE"
        time.sleep(1.0)
        assert 3 <= len(counted.read_text().split()) <= 4


def test_doctor_names_what_is_wrong_with_a_remote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = HttpServer(tmp_path)
    with served(tmp_path, server, apart=False) as at:

        def doctor(code: int, *words: str) -> None:
            assert door.main(["-C", str(at.code), "doctor"]) == code
            told = capsys.readouterr()
            assert all(word in told.out for word in words), told
            assert "pl4nted" not in told.out + told.err

        doctor(0, "takes atomic pushes", "daemons look every 2 s")
        hook(at.remote, "pre-receive", "echo 'GitLab: You are not allowed to push code to this project.'; exit 1")
        doctor(1, "ask for the right to push")
        sh(at.remote, "config", "receive.advertiseAtomic", "false")
        doctor(1, "--atomic")
        server.login = ("ada", "another")
        doctor(1, "credential helper")
        server.answers = [(403, {}, "The `acme' organization has enabled or enforced SAML SSO.\n")] * 3
        doctor(1, "single sign-on")
        server.answers = [(429, {}, "slow down\n")] * 3
        doctor(1, "too many requests")
        server.stop()
        doctor(1, "nobody answers there")
