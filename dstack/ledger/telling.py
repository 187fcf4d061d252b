"""A ledger that says when something was pushed through it, or has changed: others then needn't wait for their poll."""

from collections.abc import Callable, Sequence

from dstack.ledger.ledger import Ledger
from dstack.model.observation import Change, Observation, Outcome, Pushed


def nobody() -> None:
    """Nobody wants to know."""


class Telling:
    """A `Ledger`. `told` is called behind each push that changed something, `changed` behind each look that shows news.

    Neither may wait for anything.
    """

    def __init__(self, ledger: Ledger) -> None:
        """Everything is done by `ledger`."""
        self.told: Callable[[], None] = nobody
        self.changed: Callable[[], None] = nobody
        self._ledger = ledger
        self._last: Observation | None = None
        self.job = ledger.job

    def observe(self) -> Observation:
        """See Ledger."""
        found = self._ledger.observe()
        if found is not self._last:
            self._last = found
            self.changed()
        return found

    def commit(self, changes: Sequence[Change], seen: Observation, *, atomic: bool) -> Pushed:
        """See Ledger."""
        pushed = self._ledger.commit(changes, seen, atomic=atomic)
        if Outcome.WON in pushed.outcomes.values():
            self.told()
            self.changed()
        return pushed
