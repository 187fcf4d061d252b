"""A ledger that says when something was pushed through it: others in the process then needn't wait for their poll."""

from collections.abc import Callable, Sequence

from dstack.ledger.ledger import Ledger
from dstack.model.observation import Change, Observation, Outcome, Pushed


def nobody() -> None:
    """Nobody wants to know."""


class Telling:
    """A `Ledger`. `told` is called behind each push that changed something; it must not wait for anything."""

    def __init__(self, ledger: Ledger) -> None:
        """Everything is done by `ledger`."""
        self.told: Callable[[], None] = nobody
        self._ledger = ledger
        self.observe, self.job = ledger.observe, ledger.job

    def commit(self, changes: Sequence[Change], seen: Observation, *, atomic: bool) -> Pushed:
        """See Ledger."""
        pushed = self._ledger.commit(changes, seen, atomic=atomic)
        if Outcome.WON in pushed.outcomes.values():
            self.told()
        return pushed
