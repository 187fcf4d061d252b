"""What the JSON files of a job's `metrics` say: names and values, nested objects flattened by dots. Pure."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from dstack.model.errors import Invalid

LIMIT = 1024 * 1024
MOST = 1_000
_LARGEST = 2**53

Number = int | float
Measured = int | float | str


def parse_metrics(data: bytes) -> dict[str, Measured]:
    """The values of one file. True and false, lists and null are text. Raises Invalid, which says what is wrong."""
    try:
        tree = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        msg = "it is no UTF-8 text"
        raise Invalid(msg) from error
    except RecursionError as error:
        msg = "it is nested too deeply"
        raise Invalid(msg) from error
    except ValueError as error:
        msg = f"it is no JSON: {error}"
        raise Invalid(msg) from error
    if not isinstance(tree, dict):
        msg = 'it must hold an object, like {"accuracy": 0.93}'
        raise Invalid(msg)
    found: dict[str, Measured] = {}
    for name, value in _flattened(tree):
        found[name] = value
        if len(found) > MOST:
            msg = f"it has more than {MOST} values"
            raise Invalid(msg)
    return found


def merged(files: Mapping[str, Mapping[str, Measured]]) -> dict[str, Measured]:
    """The values of several files, by path: a name that two of them have stands behind its file (`eval.json:loss`)."""
    counts: dict[str, int] = {}
    for values in files.values():
        for name in values:
            counts[name] = counts.get(name, 0) + 1
    return {
        name if counts[name] == 1 else f"{path}:{name}": value
        for path, values in files.items()
        for name, value in values.items()
    }


def names_of(rows: Iterable[Mapping[str, object]]) -> tuple[str, ...]:
    """All names, in the order in which they come."""
    return tuple(dict.fromkeys(name for row in rows for name in row))


def differing(rows: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    """The names that not all rows have with the same value."""
    return tuple(name for name in names_of(rows) if any(row.get(name) != rows[0].get(name) for row in rows))


def order_key(value: object, *, descending: bool = False) -> tuple[int, float, str]:
    """To sort by: numbers, also those in text (variables), then other text, at the end what is missing."""
    number = as_number(value)
    if number is not None:
        return (0, -number if descending else number, "")
    return (2, 0.0, "") if value is None or value == "" or is_nan(value) else (1, 0.0, str(value))


def as_number(value: object) -> float | None:
    """A number, or text that is one; None for everything else, NaN too."""
    try:
        found = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(found) else found


def is_nan(value: object) -> bool:
    """Whether it is the number that is none."""
    return isinstance(value, float) and math.isnan(value)


def number_text(value: Measured) -> str:
    """For people: six digits that count."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def change_text(before: Measured, after: Measured) -> str:
    """`+0.02`; empty where one of them is no number."""
    if isinstance(before, str) or isinstance(after, str) or is_nan(before) or is_nan(after):
        return ""
    return f"{after - before:+.6g}"


def _flattened(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, Measured]]:
    for key, value in tree.items():
        name = f"{prefix}{_text(key)}"
        if isinstance(value, dict):
            yield from _flattened(value, f"{name}.")
        else:
            yield name, _value(value)


def _value(value: object) -> Measured:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _text(json.dumps(value, ensure_ascii=False))
    if isinstance(value, int) and abs(value) > _LARGEST:
        return str(value)
    return value


def _text(text: str) -> str:
    """JSON can spell halves of characters, which nothing can print."""
    return text.encode(errors="replace").decode()
