"""Why a remote refused: what it means, what to do, and the regular expressions that tell it. Pure."""

from typing import NamedTuple

NO_RIGHT = "ask for the right to push there, or use a state remote of your own (dstack init --remote URL)"
LATER = "it is tried again"


class Cause(NamedTuple):
    """`lasting`: a person must act; else waiting helps. `said`: regular expressions, of which one fits.

    `away`: nobody is there, or it has trouble of its own, so that asking again soon disturbs nobody.
    """

    what: str
    way: str
    said: tuple[str, ...]
    lasting: bool
    away: bool = False


def lasting(what: str, way: str, *said: str) -> Cause:
    """A person must act."""
    return Cause(what, way, said, lasting=True)


def passing(what: str, way: str, *said: str) -> Cause:
    """Waiting helps."""
    return Cause(what, way, said, lasting=False)


def away(what: str, way: str, *said: str) -> Cause:
    """Nobody is there, or it has trouble of its own: waiting helps, too."""
    return Cause(what, way, said, lasting=False, away=True)
