"""Who a runner is: what it registers, where its store is, how often it may push, and what it takes."""

from dataclasses import dataclass, field

from dstack.model.personal import Layer
from dstack.model.pool import Registration
from runner.facts import Rules
from runner.reports import Pace


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """`registration` lacks only the store. `store`: its URL, if the shared settings name none.

    `takeover`: take the name from a live runner that has it. `keep_free`: see `runner.disk`. `own`: the settings of its
    user or machine, over the shared ones.
    """

    registration: Registration
    store: str
    pace: Pace = field(default_factory=Pace)
    takeover: bool = False
    keep_free: int | None = None
    own: tuple[Layer, ...] = ()

    @property
    def rules(self) -> Rules:
        """Which attempts it takes."""
        one = self.registration
        return Rules(
            repository=one.repository,
            instance=one.instance,
            executors=frozenset(one.executors),
            capacity=one.capacity,
        )
