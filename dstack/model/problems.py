"""Problems in a user's file: each with its line and column, gathered so that one error tells all of them."""

import difflib
from collections.abc import Iterable
from types import TracebackType
from typing import NamedTuple, NoReturn

from dstack.model.errors import Invalid

MOST_PROBLEMS = 20
_SHOWN = 60


class Mark(NamedTuple):
    """A place in a file, as editors count: both from 1, columns in characters."""

    line: int
    column: int


START = Mark(1, 1)


class Misread(Invalid):
    """One problem at one place. Reading goes on behind the value that has it."""

    def __init__(self, mark: Mark, message: str) -> None:
        """`message` says what is wrong and what would be right."""
        super().__init__(message)
        self.mark = mark


class Problems:
    """What was found wrong in the file `path` so far."""

    def __init__(self, path: str) -> None:
        """`path` as the user knows it."""
        self._path = path
        self._found: list[tuple[Mark, str]] = []

    def add(self, mark: Mark, message: str) -> None:
        """Note a problem once. Raises Invalid at once where there are too many to be of use."""
        if (mark, message) not in self._found:
            self._found.append((mark, message))
        if len(self._found) >= MOST_PROBLEMS:
            self.check()

    def noting(self) -> "Noting":
        """For `with`: notes a Misread of the block, and goes on behind it."""
        return Noting(self)

    def fatal(self, mark: Mark, message: str) -> NoReturn:
        """Raise Invalid with this problem and all before: reading can't go on."""
        self._found.append((mark, message))
        raise Invalid(self._text())

    def check(self) -> None:
        """Raise Invalid, one `path:line:column: message` a line, if anything was found."""
        if self._found:
            raise Invalid(self._text())

    def _text(self) -> str:
        return "\n".join(f"{self._path}:{mark.line}:{mark.column}: {message}" for mark, message in sorted(self._found))


class Noting:
    """A block whose Misread is noted.

    Not a generator: the type checker must see that it goes on behind the block.
    """

    def __init__(self, problems: Problems) -> None:
        """`problems` takes the notes."""
        self._problems = problems

    def __enter__(self) -> None:
        """Nothing is held."""

    def __exit__(self, _type: object, error: BaseException | None, _trace: TracebackType | None) -> bool:
        """True, which drops the exception, where it was a Misread."""
        if not isinstance(error, Misread):
            return False
        self._problems.add(error.mark, str(error))
        return True


def shown(text: str) -> str:
    """Text of a file, fit for a message: quoted, in one line, of bounded length."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'train'?)`, or nothing where no known word is near."""
    by_fold = {_fold(name): str(name) for name in known}
    if len(word) > _SHOWN:
        return ""
    close = difflib.get_close_matches(_fold(word), by_fold, n=1)
    return f" (did you mean {by_fold[close[0]]!r}?)" if close else ""


def _fold(word: str) -> str:
    return word.lower().replace("_", "-")
