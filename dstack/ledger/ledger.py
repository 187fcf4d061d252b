"""What the parts ask of a ledger. Implementations: git (the real one) and memory (for simulation)."""

from collections.abc import Sequence
from typing import Protocol

from dstack.model.observation import Change, Observation, Pushed


class Ledger(Protocol):
    """The state of all runs behind one state remote. Methods may raise Unavailable, Failed."""

    def observe(self) -> Observation:
        """Poll once: one fetch."""
        ...

    def commit(self, changes: Sequence[Change], seen: Observation, *, atomic: bool) -> Pushed:
        """Make the changes in one push, every ref leased to what `seen` shows.

        `atomic`: all or nothing; else each ref for itself. A ref that was not won is told by its outcome, never by an
        exception; Unavailable means that it is not known what was won: observe again.
        """
        ...

    def job(self, oid: str) -> bytes | None:
        """The content of a job's blob that an observation named (full id)."""
        ...
