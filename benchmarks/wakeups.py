"""From a job's assignment to its start on a git server, where a controller tells of changes, and where everybody polls.

`python -m benchmarks.wakeups`. A job is assigned once the server has the assignment, by the server's own hook; it has
started by the time in its runner's note. All of it is on this machine, by one clock.
"""

import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.daemons import Bench, make
from dstack.ledger.cache import Cache
from dstack.ledger.gitledger import GitLedger
from dstack.model import refs
from dstack.model.events import Started
from dstack.model.observation import Observation
from tests.git_servers import HttpServer, free_port, wait_for_port

TIMES = 7
MOST_MS = 300
TOKEN = "a-token-of-some-length"  # noqa: S105 (made for the benchmark)
HOOK = """#!/bin/sh
now=$(date +%s.%N)
while read old new ref; do echo "$now $ref"; done >>FILE
"""
WORKFLOWS = "workflows:\n- {name: hello, commands: [echo hello], cache: false}\n"


def main() -> None:
    """Measure both."""
    told, polled = _measured(told=True), _measured(told=False)
    print(
        f"assignment to start, behind a git server: {_text(told)} with a controller that tells (at most {MOST_MS}); "
        f"{_text(polled)} by polling alone"
    )


def _text(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.0f} ms, at worst {max(seconds) * 1000:.0f},"


def _measured(*, told: bool) -> list[float]:
    with tempfile.TemporaryDirectory() as scratch:
        bench = make(Path(scratch), WORKFLOWS)
        subprocess.run(["git", "-C", bench.remote, "config", "http.receivepack", "true"], check=True)
        hook = bench.remote / "hooks" / "post-receive"
        hook.write_text(HOOK.replace("FILE", shlex.quote(str(bench.folder / "received"))))
        hook.chmod(0o755)
        server = HttpServer(bench.folder, login=None)
        server.start()
        try:
            bench.run("git", "remote", "set-url", "origin", server.url(bench.remote.name))
            with _daemons(bench, server, told=told):
                return [_taken(bench, f"run-{number}") for number in range(TIMES)]
        finally:
            server.stop()


@contextmanager
def _daemons(bench: Bench, server: HttpServer, *, told: bool) -> Iterator[None]:
    port, state = free_port(), str(bench.folder / "runner")
    environment = {**bench.environment, **({"DSTACK_CONTROLLER_TOKEN": TOKEN} if told else {})}
    bench.run("dstack", "init")
    if told:
        bench.run("dstack", "config", "set", "controller_url", f"http://127.0.0.1:{port}")
    url = server.url(bench.remote.name)
    bench.run("dstack-runner", "--state", state, "config", "--remote", url, "--executor", "process", "--name", "otter")
    commands = (
        ["dstack", "controller", "--http", f"127.0.0.1:{port}"],
        ["dstack-runner", "--state", state, "start"],
    )
    with (bench.folder / "log").open("w") as log:
        started = [
            subprocess.Popen(command, cwd=bench.code, env=environment, stdout=log, stderr=log) for command in commands
        ]
        try:
            wait_for_port(port)
            bench.run("dstack", "run", "hello")
            yield
        finally:
            for one in reversed(started):
                one.terminate()
                one.wait(30)


def _taken(bench: Bench, run: str) -> float:
    received = bench.folder / "received"
    before = len(received.read_text().splitlines())
    bench.run("dstack", "run", "hello", "--name", run)
    ledger = GitLedger(Cache(bench.folder / "judge", str(bench.remote)))
    end = time.monotonic() + 10
    while time.monotonic() < end:
        started = _started(ledger.observe(), run)
        if started is not None:
            pushes = (line.split() for line in received.read_text().splitlines()[before:])
            return started - min(float(at) for at, ref in pushes if ref.startswith(refs.assignment("")))
        time.sleep(0.1)  # the server works in this process
    sys.exit(f"{run} was not started")


def _started(seen: Observation, run: str) -> float | None:
    """When, in seconds since 1970."""
    for key, writers in seen.notes.items():
        for notes in writers.values() if key.name == run else ():
            for note in notes.notes.values():
                for event in note.events:
                    if isinstance(event, Started):
                        return event.at.timestamp()
    return None


if __name__ == "__main__":
    main()
