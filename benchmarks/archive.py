"""What the archive costs on a local bare remote: a push that takes 200 runs there, and `status --all` of 10,000."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from dstack.ledger.archive import Archive
from dstack.ledger.cache import Cache
from dstack.ledger.push import RefUpdate
from dstack.ledger.submit import create_repository
from dstack.model import refs
from dstack.model.archive import MOST_RUNS, ArchivedRun
from dstack.model.job import Reason
from dstack.model.lines import JobLine, RunLine
from dstack.model.status import Status
from tests.repositories import NOW, bare, sh, work

ROOT = Path(__file__).parent.parent
RUNS = 10_000
TIMES = 5


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        top = work(Path(scratch) / "code")
        remote = bare(Path(scratch) / "remote.git")
        sh(top, "remote", "add", "origin", str(remote))
        sh(top, "push", "--quiet", "origin", "main")
        cache = Cache(Path(scratch) / "cache", str(remote))
        create_repository(cache, "repository-1", b"")
        pushes = [_push(cache, number) for number in range(TIMES)]
        print(f"a push of {MOST_RUNS} runs into the archive: {statistics.median(pushes):.0f} ms (at most 3000)")
        many = [_run(cache, number, "there") for number in range(TIMES * MOST_RUNS, RUNS)]
        archive = Archive(cache)
        archive.look()
        if not archive.change(many).won:
            sys.exit("the archive was not written")
        print(f"status --all of {RUNS} archived runs: {_status(top):.0f} ms (at most 6000)")


def _push(cache: Cache, turn: int) -> float:
    runs = [_run(cache, number, "new") for number in range(turn * MOST_RUNS, (turn + 1) * MOST_RUNS)]
    created = [RefUpdate(ref, None, oid) for run in runs for ref, oid in run.refs.items()]
    if not cache.push(created, atomic=True).won:
        sys.exit("the runs were not pushed")
    archive = Archive(cache)
    return _timed(lambda: archive.add(runs))


def _run(cache: Cache, number: int, what: str) -> ArchivedRun:
    """A finished run of one job, with a branch and one note."""
    objects = cache.objects
    tip = objects.write_commit(objects.write_tree({}), [], f"{what} {number}") if what == "new" else f"{number:040x}"
    at = NOW + timedelta(minutes=number)
    job = JobLine(
        job=f"{number:012x}",
        workflow="train",
        matrix={},
        variables={"lr": "0.1"},
        status=Status.DONE,
        reason=Reason.OK,
        message="DONE",
        exit_code=0,
        attempt=1,
        runner="fast-box-1",
        reused_from=None,
        needs=(),
        queued_at=at,
        started_at=at,
        finished_at=at,
        logs=None,
        artifacts=None,
    )
    line = RunLine(
        run=f"fast-fox-{number}",
        root=tip,
        workflow="train",
        status=Status.DONE,
        reason=Reason.OK,
        message="DONE",
        tags=(),
        submitted_at=at,
        submitted_by="A",
        finished_at=at,
        generation=1,
        jobs=(job,),
    )
    return ArchivedRun(line=line, tip=tip, notes={refs.CONTROLLER: tip}, keys={job.job: f"{number:064x}"})


def _status(top: Path) -> float:
    command = [sys.executable, "-m", "cli.main", "-C", str(top), "status", "--all", "--json"]
    times = []
    for _ in range(TIMES):
        begin = time.perf_counter()
        out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
        times.append((time.perf_counter() - begin) * 1000)
        if out.count(b'"archived":true') != RUNS:
            sys.exit("status doesn't show all runs")
    return statistics.median(times)


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


if __name__ == "__main__":
    main()
