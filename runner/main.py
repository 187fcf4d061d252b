"""The runner's composition root: a ledger in git, stores, executors, the clock, and what wakes the agent."""

import logging
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path

from dstack import __version__
from dstack.ledger.cache import Cache
from dstack.ledger.gitledger import GitLedger
from dstack.ledger.ledger import Ledger
from dstack.ledger.remote import Remote
from dstack.ledger.telling import Telling, nobody
from dstack.ledger.waking import Loop
from dstack.model.bucket import POLL_SECONDS
from dstack.model.errors import Failed, Unavailable
from dstack.model.pool import Capacity, Registration
from dstack.model.world import Moment
from dstack.store.location import default_url, open_store
from dstack.store.store import Store
from runner.agent import Agent
from runner.caches import Caches
from runner.codecache import CodeCache
from runner.config import RunnerConfig
from runner.disk import space_of
from runner.executor import Executor
from runner.folders import Folders
from runner.journal import Journal, instance_of
from runner.lanes import Threads
from runner.process import ProcessExecutor
from runner.profile import Profile
from runner.reports import Pace, pace_of
from runner.statefolder import forget_drain, is_asked_to_drain, locked
from runner.supplied import supply_of
from runner.tools import Tools
from runner.workspace import Workspaces

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerParts:
    """What a runner is made of. `folder` is its state folder; `remote` the state remote.

    `store`: the URL where the shared settings name none. `private`: for the one run that names it. `poll` in seconds,
    and `pace`: None means by how the remote is reached. `keep_free` in bytes, see `runner.disk`. `volumes`: folders by
    name. `secrets`: whose folder the secrets are in, where it isn't its own; `lent`: an environment that has more.
    `caches`: where these are, if other runners share them.
    """

    folder: Path
    remote: Remote
    name: str
    capacity: Capacity
    executors: tuple[str, ...]
    labels: tuple[str, ...] = ()
    store: str | None = None
    private: bool = False
    takeover: bool = False
    keep_free: int | None = None
    poll: float | None = None
    pace: Pace | None = None
    volumes: Mapping[str, str] = field(default_factory=dict)
    interruptible: bool = False
    secrets: Path | None = None
    caches: Path | None = None
    lent: Mapping[str, str] = field(default_factory=dict)


def parts_of(config: RunnerConfig, folder: Path, remote: Remote) -> RunnerParts:
    """What a configured runner is made of."""
    return RunnerParts(
        folder=folder,
        remote=remote,
        name=config.name,
        capacity=config.capacity,
        executors=config.executors,
        labels=config.labels,
        keep_free=config.keep_free,
        volumes=config.volumes,
        interruptible=config.interruptible,
    )


class RunnerDaemon:
    """A runner and what wakes it. `run` blocks until it has ended; the rest may be called from anywhere."""

    def __init__(self, parts: RunnerParts) -> None:
        """Nothing is read or written yet."""
        self._parts = parts
        self._agent: Agent | None = None
        self._wish: bool | None = None
        self._wishes_drain = False
        self._asked = False
        self._told: Callable[[], None] = nobody
        # Set when it is registered, has read what is assigned to it, and is about to end all else it finds.
        self.tidied = threading.Event()

    def run(self) -> None:
        """Until shut down. Raises Failed where it can't be a runner, or is one no more; Unavailable, Invalid."""
        with locked(self._parts.folder):
            agent = self._agent = self._make()
            agent.lookout.tidied = self.tidied
            _keep_name(self._parts, agent)
            if self._wishes_drain:
                agent.drain()
            if self._wish is not None:
                agent.shutdown(stop_attempts=self._wish)
            remote = self._parts.remote
            poll = self._parts.poll or POLL_SECONDS[remote.reach]
            waker = Loop(self._wake, name="runner", poll=poll, watched=remote.path)
            thread = threading.Thread(target=waker.run, name="runner-waker", daemon=True)
            thread.start()
            try:
                agent.run()
            finally:
                waker.stop()
                thread.join()
            if agent.drained:
                forget_drain(self._parts.folder)
            if agent.failure:
                raise Failed(agent.failure)

    @property
    def held(self) -> tuple[str, ...]:
        """The attempts in hand, by `<job>.<attempt>`."""
        return tuple(self._agent.held) if self._agent else ()

    def shutdown(self, *, stop_attempts: bool) -> None:
        """Have `run` end soon: with the attempts in hand, or leaving them to the next start."""
        self._wish = stop_attempts
        if self._agent is not None:
            self._agent.shutdown(stop_attempts=stop_attempts)

    def drain(self) -> None:
        """Have `run` end when what has begun is finished; nothing more is begun."""
        self._wishes_drain = True
        if self._agent is not None:
            self._agent.drain()

    def wake(self) -> None:
        """Something may have changed on the remote."""
        if self._agent is not None:
            self._agent.wake()

    def tell(self, told: Callable[[], None]) -> None:
        """Before `run`: have this called whenever something was pushed, by a controller of this process."""
        self._told = told

    def _wake(self) -> None:
        self.wake()
        if self._agent is not None:
            self._obey(self._agent)

    def _obey(self, agent: Agent) -> None:
        """What stands in the state folder: asked by another process, and still wanted after a restart in the middle."""
        before, self._asked = self._asked, is_asked_to_drain(self._parts.folder)
        if self._asked and not before:
            LOG.info("draining, as asked: no more jobs are taken (`dstack-runner drain --cancel` takes it back)")
            agent.drain()
        elif before and not self._asked:
            agent.undrain()

    def _poke(self) -> None:
        if self._agent is not None:
            self._agent.poke()

    def _make(self) -> Agent:
        parts = self._parts
        remote, place = parts.remote, parts.folder / "cache"
        ledger = Telling(GitLedger(Cache(place, remote.url, context=remote.context(place))))
        ledger.told = self._told
        repository = _repository(ledger, parts)
        instance = instance_of(parts.folder)
        profile = Profile(
            registration=_registration(parts, repository, instance),
            store=parts.store or default_url(os.environ),
            pace=parts.pace or pace_of(remote.reach),
            takeover=parts.takeover,
            keep_free=parts.keep_free,
        )
        tools = Tools(
            executors={name: self._executor(name, instance) for name in parts.executors},
            workspaces=Folders(
                parts.folder / "attempts",
                Workspaces(parts.folder / "work", CodeCache(parts.folder / "code.git", remote.url, remote.environment)),
            ),
            open_store=stores(repository),
            lanes=Threads(),
            clock=moment,
            space=partial(space_of, parts.folder),
            caches=Caches((parts.caches or parts.folder / "caches") / repository),
            supply=supply_of(parts.name, parts.secrets or parts.folder, parts.lent),
            volumes=parts.volumes,
            labels={"repository": repository, "runner": parts.name, "instance": instance},
        )
        return Agent(profile, ledger, Journal(parts.folder / "journal.json"), tools)

    def _executor(self, name: str, instance: str) -> Executor:
        if name == "process":
            return ProcessExecutor(self._poke, instance=instance)
        if name == "docker":
            from runner.container import DockerExecutor  # noqa: PLC0415 (its library is heavy)

            executor = DockerExecutor(self._poke, instance=instance)
            executor.watch(self._parts.folder, self._parts.keep_free)
            return executor
        msg = f"there is no executor {name!r}"
        raise Failed(msg)


def moment() -> Moment:
    """Now, by this machine's clocks."""
    return Moment(wall=datetime.now(UTC), ticks=time.monotonic())


def stores(repository: str) -> Callable[[str], Store]:
    """Opens stores by URL, each once."""

    @lru_cache(maxsize=32)
    def opened(url: str) -> Store:
        return open_store(url, repository, create=False)

    return opened


def _repository(ledger: Ledger, parts: RunnerParts) -> str:
    """The id of the dstack repository. Remembered, since what runs is looked after also while the remote is away."""
    memory = parts.folder / "repository"
    try:
        repository = ledger.observe().repository
    except (Unavailable, Failed):
        if not memory.exists():
            raise
        return memory.read_text().strip()
    if repository is None:
        msg = f"{parts.remote.url} holds no dstack repository yet: run `dstack init` in a clone of it"
        raise Failed(msg)
    _write(memory, repository)
    return repository


def _keep_name(parts: RunnerParts, agent: Agent) -> None:
    """Remember the name. Raises Failed where it is another and attempts are in hand: nobody would find them then."""
    memory = parts.folder / "name"
    before = memory.read_text() if memory.exists() else parts.name
    if before != parts.name and agent.held:
        agent.close()
        msg = (
            f"this runner has {len(agent.held)} attempt(s) in hand as {before}: start it once more under that name "
            f"(dstack-runner config --name {before}) until they have ended, then rename it"
        )
        raise Failed(msg)
    _write(memory, parts.name)


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(f"{path.name}.new")
    scratch.write_text(text)
    scratch.replace(path)


def _registration(parts: RunnerParts, repository: str, instance: str) -> Registration:
    return Registration(
        repository=repository,
        runner=parts.name,
        instance=instance,
        start=secrets.token_hex(8),
        host=platform.node(),
        capacity=parts.capacity,
        labels=parts.labels,
        executors=parts.executors,
        software=__version__,
        volumes=tuple(sorted(parts.volumes)),
        interruptible=parts.interruptible,
        private=parts.private,
        store="",
        at=moment().wall,
    )
