"""What triggers cost: from a push of code to the job it starts, and polls of a repository in which nothing happens.

`python -m benchmarks.triggers [--polls 100000]`. Polls are counted, and so are the git processes they start.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.daemons import Bench, make, up
from cli.daemons import controller_daemon
from cli.remote_session import open_remote
from controller.main import moment
from dstack.ledger import git
from dstack.ledger.remote import find_remote
from tests.git_servers import GitDaemon

TIMES = 7
START_MS = 1000
GROWTH_KIB = 2048
WARM = 500
AWAY = 100
WORKFLOWS = """\
workflows:
- name: hello
  commands: [echo hello]
- name: pushed
  on: push
  commands: ['date +%s.%N > {mark}.new && mv {mark}.new {mark}']
"""


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--polls", type=int, default=3_000)
    polls = parser.parse_args().polls
    with tempfile.TemporaryDirectory() as scratch:
        mark = Path(scratch) / "began"
        bench = make(Path(scratch) / "bench", WORKFLOWS.format(mark=mark))
        with up(bench):
            seconds = [_started(bench, mark, number) for number in range(TIMES)]
        print(
            f"push to the job's start, of a local remote: {statistics.median(seconds) * 1000:.0f} ms, "
            f"at worst {max(seconds) * 1000:.0f} (at most {START_MS})"
        )
        _idle(bench, str(bench.remote), "on this machine", polls)
        server = GitDaemon(bench.folder)
        server.start()
        try:
            _idle(bench, server.url(bench.remote.name), "behind a git server", min(polls, AWAY))
        finally:
            server.stop()


def _started(bench: Bench, mark: Path, number: int) -> float:
    """From the end of `git push` to the job's first command."""
    mark.unlink(missing_ok=True)
    (bench.code / "file").write_text(f"{number}\n")
    for words in ("add .", f"commit --quiet -m {number}", "push --quiet origin HEAD"):
        bench.run("git", *words.split())
    pushed = time.time()
    while not mark.exists():
        time.sleep(0.01)
        if time.time() - pushed > 30:  # noqa: PLR2004 (nobody waits longer)
            sys.exit("a push started nothing")
    return float(mark.read_text()) - pushed


def _idle(bench: Bench, url: str, kind: str, polls: int) -> None:
    with _counted() as started:
        session = open_remote(find_remote(url, bench.folder))
        seen = session.poll()
        step = controller_daemon(session, seen, poll=0.05).controller.step
        for _ in range(min(WARM, polls)):
            step(moment())
        started.clear()
        before = _resident()
        for _ in range(polls):
            step(moment())
        grown = _resident() - before
    print(
        f"{polls:,} idle polls of a remote {kind}: {len(started) / polls:.2f} git processes each; "
        f"memory {_peak():.0f} MiB at most, {grown:+,} KiB since the first ones (at most {GROWTH_KIB:,})"
    )


@contextmanager
def _counted() -> Iterator[list[tuple[str, ...]]]:
    """The git commands that are started meanwhile."""
    started: list[tuple[str, ...]] = []
    real = git.start

    def start(context: git.Context, *args: str, stdin: bytes | None = None) -> git.Running:
        started.append(args)
        return real(context, *args, stdin=stdin)

    git.start = start
    try:
        yield started
    finally:
        git.start = real


def _resident() -> int:
    """KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(str(error))
