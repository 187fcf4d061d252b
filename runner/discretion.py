"""What is said of an attempt is said without its secrets: its log, why it failed, how it ended, what it warned of."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from dstack.model.errors import DstackError
from dstack.model.job import Reason
from runner import supplied
from runner.executor import Exit
from runner.held import Failure, Held, Kept
from runner.masking import hidden, needles
from runner.preparing import HeldUp, Workspaces
from runner.supplied import Supply

LOG = logging.getLogger(__name__)

UNTOLD = "what is to be said of it is withheld: the attempt's secrets can't be read on the runner any more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Discretion:
    """Goes by what lies in the attempts' folders."""

    workspaces: Workspaces
    supply: Supply

    def take(self, held: Held) -> tuple[str, ...]:
        """Take the attempt's secrets, before anything of its log is sent; what is to be said in it of them.

        Raises StartFailed, HeldUp.
        """
        try:
            return supplied.take(self.workspaces.folder(held.key), held.job, self.supply)
        except OSError as error:
            text = f"its secrets could not be kept in the runner's state folder: {error.strerror}"
            raise HeldUp(Failure(reason=Reason.INTERNAL, message=text)) from error

    def needles(self, held: Held) -> tuple[bytes, ...]:
        """What is to be hidden."""
        return needles(supplied.taken(self.workspaces.folder(held.key), held.job).values())

    def hide(self, held: Held) -> Callable[[str], str]:
        """Takes this attempt's secrets out of a sentence about it; where they can't be read, all that it says."""
        try:
            wanted = self.needles(held) if held.job.secrets else ()
        except (DstackError, OSError) as error:
            LOG.error("%s: %s", held.key, error)  # noqa: TRY400 (nothing of ours failed)
            return lambda text: UNTOLD if text else ""
        return lambda text: hidden(text, wanted)

    def of_exit(self, held: Held, exit_: Exit) -> Exit:
        """How it ended."""
        if not held.job.secrets:
            return exit_
        hide = self.hide(held)
        return replace(exit_, message=hide(exit_.message), warnings=tuple(map(hide, exit_.warnings)))

    def of_kept(self, held: Held, what: Kept, more: str) -> Kept:
        """What became of its log and artifacts; `more`: another warning, or nothing."""
        hide, failure = self.hide(held), what.failure
        if failure is not None:
            failure = replace(failure, message=hide(failure.message))
        warnings = (*what.warnings, more) if more else what.warnings
        return replace(what, warnings=tuple(map(hide, warnings)), failure=failure)
