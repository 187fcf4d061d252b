"""What a runner's work is done with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dstack.model.world import Moment
from runner.caches import Caches
from runner.disk import Space
from runner.executor import Executor
from runner.judge import Judge
from runner.lanes import Lanes
from runner.preparing import OpenStore, Workspaces
from runner.supplied import Supply


def _unknown() -> Space | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """`labels` mark what executors make; `space` looks at the disk.

    `supply`: where secrets come from. `volumes`: folders by the names under which they are offered. `judge`: what may
    be executed.
    """

    executors: Mapping[str, Executor]
    workspaces: Workspaces
    open_store: OpenStore
    lanes: Lanes
    clock: Callable[[], Moment]
    labels: Mapping[str, str]
    caches: Caches
    supply: Supply = field(default_factory=Supply)
    volumes: Mapping[str, str] = field(default_factory=dict)
    space: Callable[[], Space | None] = _unknown
    judge: Judge = field(default_factory=Judge)
