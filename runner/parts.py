"""What a runner is made of: by its configuration, and by who starts it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dstack.ledger.remote import Remote
from dstack.model.pool import Capacity
from runner.config import RunnerConfig
from runner.reports import Pace
from runner.trust import Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerParts:
    """`folder` is its state folder; `remote` the state remote.

    `store`: the URL where the shared settings name none. `private`: for the one run that names it. `poll` in seconds,
    and `pace`: None means by how the remote is reached. `keep_free` in bytes, see `runner.disk`. `volumes`: folders by
    name. `secrets`: whose folder the secrets are in, where it isn't its own; `lent`: an environment that has more.
    `caches`: where these are, if other runners share them. `trust`: what is demanded of runs.
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
    trust: Trust = field(default_factory=Trust)


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
        trust=config.trust,
    )
