"""`dstack status --last 500` with a warm cache, and `dstack --help`: wall time of the whole command, medians in ms."""

import contextlib
import io
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cli.daemons import controller_daemon
from cli.preparing import Order, prepare
from cli.reading import Reader
from cli.run_options import RunOptions
from cli.session import open_session, set_up
from cli.stopping import Wish, ask_for
from controller.main import moment
from dstack.ledger.gitledger import GitLedger
from dstack.ledger.submit import submit
from dstack.model import runtext
from dstack.model.runspec import Desired
from dstack.model.settings import Settings

ROOT = Path(__file__).parent.parent
RUNS = 500
TIMES = 7


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "work"
        _repository(folder)
        _runs(folder)
        print(f"status --last {RUNS}, cold: {_once(folder, 'status', '--last', str(RUNS)):.0f} ms")
        for args, bound in ((("status", "--last", str(RUNS)), 400), (("status",), 300), (("--help",), 150)):
            print(f"{' '.join(args)}, warm: {_median(folder, *args):.0f} ms (at most {bound})")


def _repository(folder: Path) -> None:
    (folder / ".dstack").mkdir(parents=True)
    (folder / ".dstack/workflows.yaml").write_text("workflows:\n- {name: hello, commands: echo hello}\n")
    for command in (
        ["init", "--quiet"],
        ["config", "user.name", "A"],
        ["config", "user.email", "a@example.org"],
        ["add", "--all"],
        ["commit", "--quiet", "-m", "x"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)


def _runs(folder: Path) -> None:
    session = open_session(folder)
    seen = set_up(session, wanted=Settings(store=(folder.parent / "store").as_uri()))
    prepared = prepare(session, Order(workflow="hello", overrides=(), options=RunOptions()), seen)
    ledger, reader = GitLedger(session.cache, runtext), Reader(session)
    for number in range(RUNS):
        prepared = prepared.renamed(f"run-{number}")
        submit(ledger, prepared.snapshot, prepared.spec)
        if number < RUNS - 1:
            ask_for(reader, Wish(run=prepared.spec.run, desired=Desired.STOP))
    controller = controller_daemon(session, seen).controller
    with contextlib.redirect_stderr(io.StringIO()):
        for _ in range(20):
            controller.step(moment())
            time.sleep(0.05)


def _once(folder: Path, *args: str) -> float:
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "cli.main", "-C", str(folder), *args], cwd=ROOT, check=True, capture_output=True
    )
    return (time.perf_counter() - begin) * 1000


def _median(folder: Path, *args: str) -> float:
    return statistics.median(_once(folder, *args) for _ in range(TIMES))


if __name__ == "__main__":
    main()
