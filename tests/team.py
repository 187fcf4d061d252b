"""A team's set-up on this machine: state on a git server, bytes in S3, and the runner on a machine of its own."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.forwarder import Forwarder
from tests.git_servers import HttpServer, SshServer, running
from tests.installed import search_path
from tests.machines import Machine, machine
from tests.pool import Pool
from tests.repositories import bare, sh, work
from tests.s3_server import S3Server

Transport = Literal["http", "ssh"]


@dataclass(slots=True)
class Team(Pool):
    """`remote` is the bare repository itself, `url` how everybody reaches it; `wires` are the ways to it and to S3."""

    machine: Machine = field(kw_only=True)
    server: HttpServer | SshServer = field(kw_only=True)
    s3: S3Server = field(kw_only=True)
    bucket: str = field(kw_only=True)
    git_wire: Forwarder = field(kw_only=True)
    s3_wire: Forwarder = field(kw_only=True)
    runner_environment: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """With the password in it, where there is one."""
        there = self.server.url("remote.git")
        return there.replace(f"127.0.0.1:{self.server.port}", f"{self.machine.ours}:{self.git_wire.port}")

    @property
    def endpoint(self) -> str:
        return f"http://{self.machine.ours}:{self.s3_wire.port}"

    def configure_runner(self, name: str = "runner", *options: str) -> None:
        """On the machine of its own."""
        words = ["--remote", self.url, "--name", name, *options]
        self.dstack_runner(name, "config", *words)

    def share(self, line: str) -> None:
        """Add a line to the settings shared by all."""
        config = self.folder / "config"
        sh(self.folder, "clone", "--quiet", "--branch", "dstack/config", str(self.remote), str(config))
        with (config / "config.yaml").open("a") as file:
            file.write(f"{line}\n")
        sh(config, "commit", "--quiet", "-am", line)
        sh(config, "push", "--quiet")

    def dstack_runner(self, name: str, *words: str) -> None:
        self.run("dstack-runner", "--state", str(self.folder / f"{name}-state"), *words)

    def start_runner(self, name: str = "runner") -> None:
        state = str(self.folder / f"{name}-state")
        self.start(name, *self.machine.command("dstack-runner", "--state", state, "start"))


@contextmanager
def team(
    folder: Path, files: Path | str, s3: S3Server, transport: Transport, *, slow: float | None = None, **more: str
) -> Iterator[Team]:
    """`files`: a folder to be the repository's content, or the text of its workflows. No daemons yet."""
    with ExitStack() as stack:
        host = stack.enter_context(machine())
        remote = bare(folder / "remote.git")
        server = HttpServer(folder) if transport == "http" else SshServer(folder)
        stack.enter_context(running(server))
        git_wire = Forwarder(("127.0.0.1", server.port), host=host.ours)
        s3_wire = Forwarder(("127.0.0.1", s3.ports["s3"]), host=host.ours, rate=slow)
        stack.callback(git_wire.close)
        stack.callback(s3_wire.close)
        environment = {**os.environ, **s3.environment, "PATH": search_path(folder / "bin"), **more}
        environment["no_proxy"] = environment["NO_PROXY"] = f"127.0.0.1,localhost,{host.ours}"
        if isinstance(server, SshServer):
            known = server.keys / "known"
            key = (server.keys / "host.pub").read_text().split()
            known.write_text(known.read_text() + f"[{host.ours}]:{git_wire.port} {key[0]} {key[1]}\n")
            environment["GIT_SSH_COMMAND"] = server.client()
        made = Team(
            folder,
            environment,
            machine=host,
            server=server,
            s3=s3,
            bucket=s3.bucket(),
            git_wire=git_wire,
            s3_wire=s3_wire,
        )
        assert remote == made.remote
        work(made.code)
        if isinstance(files, str):
            (made.code / ".dstack" / "workflows.yaml").write_text(files)
        else:
            sh(made.code, "rm", "-rq", ".")
            made.run("cp", "-R", f"{files}/.", str(made.code))
        sh(made.code, "add", ".")
        sh(made.code, "commit", "--quiet", "-m", "workflows")
        made.dstack(
            "init", "--remote", made.url, "--store", f"s3://{made.bucket}/team", "--endpoint-url", made.endpoint
        )
        try:
            yield made
        finally:
            made.end()
