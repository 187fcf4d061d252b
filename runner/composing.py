"""Puts a runner together: a ledger in git, stores, executors and the clock, for the agent that uses them."""

import os
import platform
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache, partial

from dstack import __version__
from dstack.ledger.cache import Cache
from dstack.ledger.gitledger import GitLedger
from dstack.ledger.ledger import Ledger
from dstack.ledger.telling import Telling
from dstack.model.errors import Failed, Unavailable
from dstack.model.pool import Registration
from dstack.model.world import Moment
from dstack.personal import layers_of
from dstack.store.location import default_url, open_store
from dstack.store.store import Store
from runner.agent import Agent
from runner.caches import Caches
from runner.codecache import CodeCache
from runner.disk import space_of
from runner.executor import Executor
from runner.folders import Folders
from runner.journal import Journal, instance_of
from runner.judge import Judge
from runner.lanes import Threads
from runner.parts import RunnerParts
from runner.process import ProcessExecutor
from runner.profile import Profile
from runner.reports import pace_of
from runner.statefolder import remember
from runner.supplied import supply_of
from runner.tools import Tools
from runner.workspace import Workspaces


def agent_of(parts: RunnerParts, poke: Callable[[], None], told: Callable[[], None]) -> Agent:
    """The runner's agent, over git, stores and executors. `poke`: something changed here; `told`: it was pushed.

    Raises Failed, Unavailable, Invalid.
    """
    remote, place = parts.remote, parts.folder / "cache"
    cache = Cache(place, remote.url, context=remote.context(place))
    ledger = Telling(GitLedger(cache))
    ledger.told = told
    repository = _repository(ledger, parts)
    instance = instance_of(parts.folder)
    profile = Profile(
        registration=_registration(parts, repository, instance),
        store=parts.store or default_url(os.environ),
        pace=parts.pace or pace_of(remote.reach),
        takeover=parts.takeover,
        keep_free=parts.keep_free,
        own=layers_of(os.environ),
    )
    tools = Tools(
        executors={name: _executor(parts, name, instance, poke) for name in parts.executors},
        workspaces=Folders(
            parts.folder / "attempts",
            Workspaces(parts.folder / "work", CodeCache(parts.folder / "code.git", remote.url, remote.environment)),
        ),
        open_store=_stores(repository),
        lanes=Threads(),
        clock=_moment,
        space=partial(space_of, parts.folder),
        caches=Caches((parts.caches or parts.folder / "caches") / repository),
        supply=supply_of(parts.name, parts.secrets or parts.folder, parts.lent),
        volumes=parts.volumes,
        judge=Judge(trust=parts.trust, runner=parts.name, objects=lambda: cache.objects),
        labels={"repository": repository, "runner": parts.name, "instance": instance},
    )
    return Agent(profile, ledger, Journal(parts.folder / "journal.json"), tools)


def _moment() -> Moment:
    """Now, by this machine's clocks."""
    return Moment(wall=datetime.now(UTC), ticks=time.monotonic())


def _stores(repository: str) -> Callable[[str], Store]:
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
    remember(memory, repository)
    return repository


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
        forks=parts.trust.forks,
        private=parts.private,
        store="",
        at=_moment().wall,
    )


def _executor(parts: RunnerParts, name: str, instance: str, poke: Callable[[], None]) -> Executor:
    if name == "process":
        return ProcessExecutor(poke, instance=instance)
    if name == "docker":
        from runner.container import DockerExecutor  # noqa: PLC0415 (its library is heavy)

        executor = DockerExecutor(poke, instance=instance)
        executor.watch(parts.folder, parts.keep_free)
        return executor
    msg = f"there is no executor {name!r}"
    raise Failed(msg)
