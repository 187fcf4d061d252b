"""A repository with a bare remote, a folder store and warm daemons, for benchmarks that measure what users wait for."""

import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

READY_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A folder with everything in it; `environment` keeps the user's own files out."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def code(self) -> Path:
        """The work tree."""
        return self.folder / "code"

    @property
    def remote(self) -> Path:
        """The bare remote."""
        return self.folder / "remote.git"

    @property
    def pushes(self) -> int:
        """How many pushes the remote has received, by its own hook."""
        log = self.folder / "pushes"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def run(self, *args: str) -> str:
        """Run a command to its end in the work tree; what it prints."""
        done = subprocess.run(args, cwd=self.code, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(args)} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def seconds(self, *args: str) -> float:
        """How long a command takes."""
        begin = time.perf_counter()
        self.run(*args)
        return time.perf_counter() - begin


def make(folder: Path, workflows: str, *, counting: bool = False) -> Bench:
    """A repository with one commit, and its remote; if `counting`, with a hook that counts pushes."""
    scripts = sysconfig.get_path("scripts")
    homes = {f"XDG_{kind}_HOME": str(folder / kind.lower()) for kind in ("DATA", "STATE", "CACHE", "CONFIG")}
    identity = {f"GIT_{role}_{key}": "bench" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    paths = {"HOME": str(folder), "PATH": f"{scripts}:{os.environ['PATH']}", "GIT_CONFIG_GLOBAL": os.devnull}
    keep = {name: os.environ[name] for name in ("DOCKER_HOST", "LANG") if name in os.environ}
    bench = Bench(folder=folder, environment={**keep, **homes, **identity, **paths})
    (bench.code / ".dstack").mkdir(parents=True)
    (bench.code / ".dstack" / "workflows.yaml").write_text(workflows)
    subprocess.run(["git", "init", "--quiet", "--bare", bench.remote], check=True, env=bench.environment)
    if counting:
        hook = bench.remote / "hooks" / "post-receive"
        hook.write_text(f"#!/bin/sh\ncat >/dev/null\necho push >>{folder}/pushes\n")
        hook.chmod(0o755)
    for words in ("init --quiet", "add .", "commit --quiet -m begin", f"remote add origin {bench.remote}"):
        bench.run("git", *words.split())
    bench.run("git", "push", "--quiet", "origin", "HEAD")
    return bench


@contextmanager
def up(bench: Bench) -> Iterator[None]:
    """`dstack up`, warm: it has finished one run."""
    with (bench.folder / "up.log").open("w") as log:
        daemon = subprocess.Popen(["dstack", "up"], cwd=bench.code, env=bench.environment, stdout=log, stderr=log)
        try:
            bench.run("dstack", "run", "hello")
            yield
        finally:
            daemon.terminate()
            daemon.wait(READY_SECONDS)
