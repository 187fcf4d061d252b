"""How long finished runs stay before they are archived: the setting `retention`, as text and as a value."""

from dataclasses import dataclass
from datetime import timedelta

from dstack.model.errors import Invalid
from dstack.model.units import duration_text, parse_duration

MOST_RUNS = 100_000
_NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """A finished run leaves when it is older than `age` or not among the latest `runs`. None: no such limit."""

    age: timedelta | None
    runs: int | None


NEVER = Retention(age=None, runs=None)
DEFAULT = Retention(age=timedelta(days=14), runs=200)


def parse_retention(text: str) -> Retention:
    """Such as `14d, 200 runs`, `30d`, `50 runs` or `never`. Raises Invalid."""
    if text.strip() == _NEVER:
        return NEVER
    age: timedelta | None = None
    runs: int | None = None
    for part in text.split(","):
        number, _, word = part.strip().partition(" ")
        if word.strip() in ("run", "runs") and runs is None:
            runs = _count(number, text)
        elif age is None:
            age = timedelta(seconds=_seconds(part.strip(), text))
        else:
            raise _wrong(text)
    return Retention(age=age, runs=runs)


def retention_text(retention: Retention) -> str:
    """The inverse of `parse_retention`, to the millisecond."""
    parts = [duration_text(retention.age.total_seconds())] if retention.age is not None else []
    parts += [f"{retention.runs} runs"] if retention.runs is not None else []
    return ", ".join(parts) or _NEVER


def _count(number: str, text: str) -> int:
    if not (number.isascii() and number.isdecimal() and len(number) < len(str(MOST_RUNS)) and int(number) > 0):
        raise _wrong(text)
    return int(number)


def _seconds(part: str, text: str) -> float:
    try:
        return parse_duration(part)
    except Invalid as error:
        raise _wrong(text) from error


def _wrong(text: str) -> Invalid:
    return Invalid(
        f"retention is {text[:40]!r}; give an age, a number of runs or both, like `14d, 200 runs`, or `never`"
    )
