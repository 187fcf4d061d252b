"""An event appended to a run of 10,000 jobs: bytes it adds to the remote, and milliseconds of each step."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dstack.ledger.cache import Cache
from dstack.ledger.gitledger import GitLedger
from dstack.model import job as jobs
from dstack.model.events import Assigned, Planned
from dstack.model.job import Job
from dstack.model.observation import AppendNotes
from tests.repositories import NOW, bare, place, record_of, sh, work

JOBS, ROUNDS = 10_000, 9


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        top = work(Path(folder) / "code")
        remote = bare(Path(folder) / "remote.git")
        sh(top, "remote", "add", "origin", str(remote))
        here = place(top, Path(folder) / "cache")
        here.submit()
        reader = GitLedger(Cache(Path(folder) / "reader", str(remote)))
        oids = _plan(here.ledger)
        _timed("first poll of all this by another", reader.observe)
        sh(remote, "gc", "--quiet")
        grown, pushes, polls = [], [], []
        for n in range(ROUNDS):
            seen = here.ledger.observe()
            before = _size(remote)
            change = AppendNotes(key=record_of(seen).key, writer="controller", events={oids[n]: (_event(2),)})
            begun = time.perf_counter()
            here.ledger.commit([change], seen, atomic=True)
            pushes.append(time.perf_counter() - begun)
            grown.append(_size(remote) - before)
            begun = time.perf_counter()
            reader.observe()
            polls.append(time.perf_counter() - begun)
    print(f"bytes an event adds to the remote   {statistics.median(grown):8.0f}; the budget is 20,480")
    print(f"append and push                     {statistics.median(pushes) * 1000:8.1f} ms")
    print(f"poll that reads it                  {statistics.median(polls) * 1000:8.1f} ms")


def _plan(ledger: GitLedger) -> list[str]:
    """Plan the run and assign every job, in one push."""
    record = record_of(ledger.observe())
    made = [Job(root=record.root, workflow="hello", commands=(f"echo {n}",)) for n in range(JOBS)]
    blobs = {jobs.job_oid(one): jobs.to_bytes(one) for one in made}
    planned = Planned(seq=1, at=NOW, generation=1, jobs=tuple(blobs), store="file:///s", message="planned")
    events = {record.root: (planned,), **{oid: (_event(1),) for oid in blobs}}
    change = AppendNotes(key=record.key, writer="controller", events=events, jobs=blobs)
    seen = ledger.observe()
    _timed("plan and assign 10,000 jobs, push", lambda: ledger.commit([change], seen, atomic=True))
    return list(blobs)


def _event(seq: int) -> Assigned:
    values = {"runner": "fast-rabbit-1", "instance": "0123456789abcdef", "nonce": "0123456789abcdef"}
    return Assigned(seq=seq, at=NOW, generation=1, attempt=seq, message="assigned to fast-rabbit-1", **values)


def _timed(name: str, step: Callable[[], object]) -> None:
    begun = time.perf_counter()
    step()
    print(f"{name:35} {(time.perf_counter() - begun) * 1000:8.1f} ms")


def _size(repository: Path) -> int:
    return sum(path.stat().st_size for path in (repository / "objects").rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
