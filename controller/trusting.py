"""Where only signed runs are to be executed: which runs may be decided about, which have failed, which must wait."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from dstack.ledger.objects import Objects
from dstack.ledger.verifying import SignersFile, Verifier
from dstack.model.errors import DstackError
from dstack.model.observation import Observation, RunRecord
from dstack.model.resuming import is_resumed
from dstack.model.settings import Settings
from dstack.model.signature import Distrusted
from dstack.model.world import RunView

UNSET = (
    "signed runs are demanded, and no signers are set here: nothing is decided until `dstack config set signers FILE "
    "--personal` has named them"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The runs that may be decided about, with what is said against some; `held`: the keys of those that must wait.

    `problem`: why these wait.
    """

    runs: tuple[RunView, ...]
    held: frozenset[str] = frozenset()
    problem: str = ""


@dataclass(slots=True)
class Trusting:
    """Verifies runs that aren't finished, and remembers that. `objects`: those of the controller's ledger.

    `problem`: why some must wait, by the last look.
    """

    objects: Callable[[], Objects] | None = None
    problem: str = ""
    _verifier: Verifier | None = None

    def judged(self, runs: tuple[RunView, ...], seen: Observation, settings: Settings) -> Judged:
        """All runs as they may be decided about under these settings."""
        self.problem = ""
        if not settings.signed:
            return Judged(runs=runs)
        look = _Look(verifier=self._verifier_of(settings), objects=self.objects)
        kept = tuple(one for run in runs if (one := look.run(run, seen)))
        self.problem = look.problem
        return Judged(runs=kept, held=frozenset(look.held), problem=look.problem)

    def _verifier_of(self, settings: Settings) -> Verifier | None:
        if settings.signers is None:
            return None
        file = SignersFile(path=Path(settings.signers).expanduser())
        if self._verifier is None or self._verifier.file != file:
            self._verifier = Verifier(file)
        return self._verifier


@dataclass(slots=True, kw_only=True)
class _Look:
    verifier: Verifier | None
    objects: Callable[[], Objects] | None
    held: list[str] = field(default_factory=list)
    problem: str = ""

    def run(self, run: RunView, seen: Observation) -> RunView | None:
        """The run, if anything may be decided about it now."""
        record = seen.runs.get(run.key.name)
        if (run.state.finished and not is_resumed(run)) or not isinstance(record, RunRecord):
            return run
        if self.verifier is None or self.objects is None:
            self._hold(run, UNSET)
            return None
        try:
            self.verifier.check_chain(self.objects(), record.tip)
        except Distrusted as error:
            return replace(run, distrust=f"only signed runs are executed: {error}")
        except DstackError as error:
            self._hold(run, f"signatures can't be verified: {error}")
            return None
        return run

    def _hold(self, run: RunView, problem: str) -> None:
        self.held.append(str(run.key))
        self.problem = problem
