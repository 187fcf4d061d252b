"""A runner's daemon as a process of its own, on a real remote and a real store; a test plays the controller."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from dstack.ledger import records
from dstack.ledger.cache import Cache
from dstack.ledger.gitledger import GitLedger
from dstack.model import keys, refs
from dstack.model.events import Assigned, Ended, Started
from dstack.model.job import Job, job_oid, to_bytes
from dstack.model.observation import AppendNotes, Change, SetAssignments
from dstack.model.pool import Attempt, Input, Phase
from dstack.model.refs import RunKey
from dstack.model.runspec import Desired
from dstack.store.heartbeats import read_runners
from dstack.store.location import open_store
from dstack.store.log_reader import LogReader
from tests.repositories import bare, sh, work

REPOSITORY = "repo-12345678"
NAME = "quick-owl"
PROGRAM = """
import sys
from pathlib import Path
from cli.daemons import on_signals
from dstack.model.pool import Capacity
from dstack.ledger.remote import find_remote
from runner.main import RunnerDaemon
from runner.parts import RunnerParts
folder, remote, store, name, *executors = sys.argv[1:]
daemon = RunnerDaemon(RunnerParts(
    folder=Path(folder), remote=find_remote(remote, Path()), store=store, name=name,
    capacity=Capacity(cpu=2.0, memory=2**33), executors=tuple(executors),
))
on_signals(lambda: daemon.shutdown(stop_attempts=False))
daemon.run()
"""


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """For what happens in another process."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


@dataclass
class Pool:
    """The remote, the store, and one runner's state folder. `executors`: what the runner has."""

    folder: Path
    executors: tuple[str, ...] = ("process",)
    assigned: dict[str, tuple[Attempt, Job]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.remote = bare(self.folder / "remote.git")
        self.state = self.folder / "state"
        code = work(self.folder / "code")
        self.snapshot = sh(code, "rev-parse", "HEAD")
        self.key = RunKey("fast-rabbit-1", "5ab98f2089ae")
        self.ledger = GitLedger(Cache(self.folder / "controller", str(self.remote)))
        oid = records.write_id(self.ledger.cache.objects, REPOSITORY)
        sh(self.folder / "controller", "push", "-q", str(self.remote), f"{oid}:{refs.ID}")
        sh(code, "push", "-q", str(self.remote), f"HEAD:{refs.snapshot(self.key)}")
        self.url = (self.folder / "store").as_uri()
        self.store = open_store(self.url, REPOSITORY, create=True)

    @contextmanager
    def runner(self, name: str = NAME, *, registered: bool = True) -> Iterator["subprocess.Popen[bytes]"]:
        """The daemon; killed at the end if it still runs. `registered`: not before it is."""
        argv = [sys.executable, "-c", PROGRAM, str(self.state), str(self.remote), self.url, name, *self.executors]
        before = self._start() if registered else None
        with (self.folder / "daemon.log").open("ab") as log:
            process = subprocess.Popen(argv, cwd=Path(__file__).parent.parent, stderr=log)
        try:
            wait_until(lambda: not registered or self._start() != before or process.poll() is not None)
            assert process.poll() is None, (self.folder / "daemon.log").read_text()
            yield process
        finally:
            process.kill()
            process.wait()

    def assign(self, *jobs: Job, inputs: tuple[str, ...] = ()) -> None:
        """Assign the first attempt of each, beside what is assigned; `inputs`: digests of manifests."""
        seen = self.ledger.observe()
        instance = seen.runners[NAME].instance
        new = {attempt.key: (attempt, job) for job in jobs for attempt in [self._attempt(job, instance, inputs)]}
        self.assigned |= new
        decided = AppendNotes(
            key=self.key,
            writer=refs.CONTROLLER,
            events={job_oid(job): (_assigned(attempt),) for attempt, job in new.values()},
            jobs={job_oid(job): to_bytes(job) for job in jobs},
        )
        self._commit([decided, self._assignments()])

    def unassign(self, job: Job) -> None:
        """Take an attempt away."""
        del self.assigned[self.attempt_key(job)]
        self._commit([self._assignments()])

    def stop(self, job: Job) -> None:
        """Ask for an end."""
        attempt, _ = self.assigned[self.attempt_key(job)]
        self.assigned[attempt.key] = msgspec.structs.replace(attempt, desired=Desired.STOP), job
        self._commit([self._assignments()])

    def attempt_key(self, job: Job) -> str:
        """The key of a job's first attempt."""
        return f"{job_oid(job)[:12]}.1"

    def events(self, job: Job) -> list[Started | Ended]:
        """The runner's note on a job."""
        notes = self.ledger.observe().notes_of(self.key, NAME)
        return [
            event for event in (notes.on(job_oid(job)).events if notes else ()) if isinstance(event, Started | Ended)
        ]

    def claims(self, job: Job) -> list[Ended]:
        """What was claimed of a job's attempt."""
        return [event for event in self.events(job) if isinstance(event, Ended)]

    def claim(self, job: Job, seconds: float = 20.0) -> Ended:
        """The only claim about a job's attempt, when it comes."""
        wait_until(lambda: bool(self.claims(job)), seconds)
        (claim,) = self.claims(job)
        return claim

    def log(self, job: Job) -> tuple[bytes, bool]:
        """The log as a reader finds it, and whether it is closed."""
        reader = LogReader(self.store, keys.log(str(self.key), job_oid(job), 1))
        data = b""
        while records_ := reader.poll(whole=True).records:
            data += b"".join(record.data for record in records_)
        return data, reader.closed

    def phase(self, job: Job) -> Phase | None:
        """Where the attempt is, by the runner's heartbeat."""
        seen = [one.heartbeat for one in read_runners(self.store).seen.values()]
        return next((beat.attempts.get(self.attempt_key(job)) for beat in seen), None)

    def _start(self) -> str | None:
        registration = self.ledger.observe().runners.get(NAME)
        return registration.start if registration else None

    def _attempt(self, job: Job, instance: str, inputs: tuple[str, ...]) -> Attempt:
        oid = job_oid(job)
        return Attempt(
            repository=REPOSITORY,
            run=str(self.key),
            root=job.root,
            snapshot=self.snapshot,
            job=oid[:12],
            attempt=1,
            instance=instance,
            nonce=f"nonce-{job.workflow}",
            inputs=tuple(Input(job="0" * 12, manifest=digest) for digest in inputs),
            log=keys.log(str(self.key), oid, 1),
            store=self.url,
            order=job.workflow,
        )

    def _assignments(self) -> SetAssignments:
        return SetAssignments(
            runner=NAME,
            attempts={key: attempt for key, (attempt, _) in self.assigned.items()},
            jobs={key: job_oid(job) for key, (_, job) in self.assigned.items()},
        )

    def _commit(self, changes: list[Change]) -> None:
        pushed = self.ledger.commit(changes, self.ledger.observe(), atomic=True)
        assert pushed.won, pushed


def kill(process: "subprocess.Popen[bytes]") -> None:
    """As by a power cut, to the runner alone."""
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def _assigned(attempt: Attempt) -> Assigned:
    return Assigned(
        seq=1,
        at=datetime.now(UTC),
        generation=1,
        attempt=1,
        runner=NAME,
        instance=attempt.instance,
        nonce=attempt.nonce,
    )
