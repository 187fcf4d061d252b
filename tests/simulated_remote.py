"""The simulated remote: a ledger in memory that is away, slow to answer, cut in half, read while it changes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from dstack.ledger.memory import Content, MemoryLedger, MemoryRemote
from dstack.model.errors import Unavailable
from dstack.model.observation import Change, Observation, Pushed


class Crash(Exception):
    """The process dies here."""


class Cut(Exception):
    """The server dies in the middle of a push."""


@dataclass(slots=True, kw_only=True)
class Faults:
    """How likely each fault is, at each chance it gets; all zero once a simulation settles down."""

    crash: float = 0.0
    cut: float = 0.0
    answer_lost: float = 0.0
    torn: float = 0.0
    race: float = 0.0

    def calm(self) -> None:
        """No more faults."""
        self.crash = self.cut = self.answer_lost = self.torn = self.race = 0.0


@dataclass(slots=True, kw_only=True)
class SimulatedLedger:
    """A party's way to the remote. `away` says whether it is unreachable now; `others` lets somebody else go first.

    `judge` is shown what is to be pushed, and what that was decided by. `leased` is switched off by a test that shows
    that the laws would be broken without leases.
    """

    remote: MemoryRemote
    random: Random
    faults: Faults
    away: Callable[[], bool]
    others: Callable[[], None]
    changed: Callable[[], None]
    judge: Callable[[Sequence[Change], Observation], None] = lambda _changes, _seen: None
    leased: bool = True
    before: dict[str, tuple[str, Content]] = field(default_factory=dict)
    _plain: MemoryLedger = field(init=False)

    def __post_init__(self) -> None:
        """One that remembers what it has seen."""
        self._plain = MemoryLedger(self.remote)

    def observe(self) -> Observation:
        """As the remote is, or, torn, as some of its refs were at the look before."""
        self._reach()
        refs = dict(self.remote.refs)
        if self._happens(self.faults.torn):
            old = {ref: pair for ref, pair in self.before.items() if self.random.random() < 0.5}
            new = {ref: pair for ref, pair in refs.items() if ref in self.before or self.random.random() < 0.5}
            mixed = replace(self.remote, refs={**new, **old})
            return MemoryLedger(mixed).observe()
        self.before = refs
        return self._plain.observe()

    def commit(self, changes: Sequence[Change], seen: Observation, *, atomic: bool) -> Pushed:
        """One push, with everything that can go wrong around it."""
        self.judge(changes, seen)
        if self._happens(self.faults.race):
            self.others()
        self._maybe_crash()
        self._reach()
        cut_at = self.random.choice(changes).ref if changes and self._happens(self.faults.cut) else None
        try:
            pushed = self._push(changes, seen, atomic=atomic, cut_at=cut_at)
        except Cut as error:
            self._maybe_crash()
            msg = "the remote hung up"
            raise Unavailable(msg) from error
        self.before = dict(self.remote.refs)  # what one has pushed oneself is never unseen again
        self.changed()
        self._maybe_crash()
        if self._happens(self.faults.answer_lost):
            msg = "the answer got lost"
            raise Unavailable(msg)
        return pushed

    def job(self, oid: str) -> bytes | None:
        """A job's blob."""
        return self.remote.blobs.get(oid)

    def _push(self, changes: Sequence[Change], seen: Observation, *, atomic: bool, cut_at: str | None) -> Pushed:
        def before_ref(ref: str) -> None:
            if ref == cut_at:
                raise Cut

        self.remote.before_ref = before_ref
        seen = seen if self.leased else MemoryLedger(self.remote).observe()
        return MemoryLedger(self.remote).commit(changes, seen, atomic=atomic)

    def _reach(self) -> None:
        if self.away():
            msg = "the remote is away"
            raise Unavailable(msg)

    def _maybe_crash(self) -> None:
        if self._happens(self.faults.crash):
            raise Crash

    def _happens(self, chance: float) -> bool:
        return self.random.random() < chance
