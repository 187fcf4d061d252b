"""A runner within this process, for `dstack up` and `--local`: composed from the runner's parts, with a waker."""

import os
import platform
import secrets
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cli.session import Seen, Session
from controller.main import POLL_SECONDS, moment
from dstack import __version__
from dstack.ledger.cache import Cache
from dstack.ledger.gitledger import GitLedger
from dstack.ledger.waking import Loop
from dstack.model import refs, runtext
from dstack.model.errors import DstackError, Failed
from dstack.model.observation import DeleteRef
from dstack.model.pool import Capacity, Registration
from dstack.store.heartbeats import delete_runner
from dstack.store.location import open_store
from runner.agent import Agent, Profile
from runner.codecache import CodeCache
from runner.executor import Executor
from runner.folders import Folders
from runner.journal import Journal, instance_of
from runner.lanes import Threads
from runner.process import ProcessExecutor
from runner.reports import Pace
from runner.works import Tools
from runner.workspace import Workspaces


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerPlan:
    """Which runner: its name and state folder. `private`: for the one run that names it."""

    name: str
    folder: Path
    private: bool = False


class RunnerDaemon:
    """A runner and what wakes it. `run` blocks until it has ended."""

    def __init__(self, session: Session, seen: Seen, plan: RunnerPlan) -> None:
        """Takes up what an earlier process has left in the state folder."""
        self._session, self._seen, self._plan = session, seen, plan
        _make(plan.folder)
        self._instance = instance_of(plan.folder)
        executors = self._executors()
        registration = _registration(seen.known_repository(), plan, self._instance, tuple(executors))
        self._ledger = GitLedger(Cache(plan.folder / "cache", session.remote.url, borrow=session.code.objects), runtext)
        self.name = plan.name
        self._agent = Agent(
            Profile(registration=registration, store=seen.store_url, pace=Pace()),
            self._ledger,
            Journal(plan.folder / "journal.json"),
            self._tools(executors),
        )
        self._waker = Loop(self._wake, name="runner", poll=POLL_SECONDS, watched=session.remote.path)

    def run(self) -> None:
        """Until shut down. Raises Failed where it can't be a runner."""
        waker = threading.Thread(target=self._waker.run, name="runner-waker", daemon=True)
        waker.start()
        try:
            self._agent.run()
        finally:
            self._waker.stop()
            waker.join()
        if self._agent.failure:
            raise Failed(self._agent.failure)

    @property
    def held(self) -> tuple[str, ...]:
        """The attempts in hand."""
        return tuple(self._agent.held)

    def shutdown(self, *, stop_attempts: bool) -> None:
        """Have `run` end soon: with the attempts in hand, or leaving them to the next start."""
        self._agent.shutdown(stop_attempts=stop_attempts)

    def forget(self) -> None:
        """Leave nothing of a private runner behind. What can't be removed is litter, and no harm."""
        changes = [DeleteRef(ref=refs.runner(self._plan.name)), DeleteRef(ref=refs.assignment(self._plan.name))]
        with suppress(DstackError):
            seen = self._ledger.observe()
            self._ledger.commit([change for change in changes if change.ref in seen.refs], seen, atomic=False)
            delete_runner(self._seen.store(), self._plan.name, self._instance)

    def _wake(self) -> float | None:
        self._agent.wake()
        return None

    def _poke(self) -> None:
        self._agent.poke()

    def _executors(self) -> Mapping[str, Executor]:
        return {"process": ProcessExecutor(self._poke, instance=self._instance)}

    def _tools(self, executors: Mapping[str, Executor]) -> Tools:
        folder, repository = self._plan.folder, self._seen.known_repository()
        trees = Workspaces(folder / "work", CodeCache(folder / "code", self._session.remote.url))
        return Tools(
            executors=executors,
            workspaces=Folders(folder / "attempts", trees),
            open_store=lambda url: open_store(url, repository, create=False),
            lanes=Threads(),
            clock=moment,
            labels={"repository": repository, "runner": self._plan.name, "instance": self._instance},
        )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        msg = f"can't create the runner's state folder {folder}: {error.strerror}"
        raise Failed(msg) from error


def _registration(repository: str, plan: RunnerPlan, instance: str, executors: tuple[str, ...]) -> Registration:
    return Registration(
        repository=repository,
        runner=plan.name,
        instance=instance,
        start=secrets.token_hex(8),
        host=platform.node(),
        capacity=Capacity(cpu=float(len(os.sched_getaffinity(0))), memory=_memory()),
        executors=executors,
        software=__version__,
        private=plan.private,
        store="",
        at=moment().wall,
    )


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
