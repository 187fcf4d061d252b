"""Durations and sizes as people write them: `2h30m`, `32GB`, `512MiB`."""

import re
from fractions import Fraction

from dstack.model.errors import Invalid

MAX_SECONDS = 365 * 86400.0
MAX_BYTES = 2**60

_DURATION_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
UNITS = tuple(_DURATION_UNITS)
_NUMBER = r"[0-9]{1,20}(?:\.[0-9]{1,9})?"
_PIECE = re.compile(rf"({_NUMBER}) ?(ms|[dhms])", re.ASCII)
_SIZE = re.compile(rf"({_NUMBER}) ?([KMGTP]?)(i?)B", re.ASCII | re.IGNORECASE)
_PREFIXES = ("", "K", "M", "G", "T", "P")


def parse_duration(text: str) -> float:
    """Seconds. Units fall from days to milliseconds, each at most once. Raises Invalid."""
    pieces = _PIECE.findall(text)
    order = [list(_DURATION_UNITS).index(unit) for _, unit in pieces]
    whole = _PIECE.sub("", text).strip() == ""
    if not pieces or not whole or order != sorted(set(order)):
        seconds = ": say the unit" if text.strip().isdecimal() else ""
        msg = f"{text[:40]!r} is no duration{seconds}, like 90s, 15m, 2h30m or 1d"
        raise Invalid(msg)
    total = sum(float(number) * _DURATION_UNITS[unit] for number, unit in pieces)
    if total > MAX_SECONDS:
        msg = f"{text[:40]!r} is longer than 365 days"
        raise Invalid(msg)
    return total


def duration_text(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as the same number of whole milliseconds."""
    rest = round(seconds * 1000)
    pieces: list[str] = []
    for unit, length in _DURATION_UNITS.items():
        count, rest = divmod(rest, round(length * 1000))
        pieces += [f"{count}{unit}"] if count else []
    return "".join(pieces) or "0s"


def parse_size(text: str) -> int:
    """Bytes: KB, MB, GB, TB are powers of 1000, KiB, MiB, GiB, TiB powers of 1024. Raises Invalid."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        msg = f"{text[:40]!r} is no size: write a number and a unit, like 512MB, 32GB or 16GiB"
        raise Invalid(msg)
    number, prefix, binary = match.groups()
    size = int(Fraction(number) * (1024 if binary else 1000) ** _PREFIXES.index(prefix.upper()))
    if size > MAX_BYTES:
        msg = f"{text[:40]!r} is more than a machine can have"
        raise Invalid(msg)
    return size


def size_text(size: int) -> str:
    """The shortest text that `parse_size` reads as exactly this number of bytes."""
    texts = [f"{size}B"]
    for step, mark in ((1024, "iB"), (1000, "B")):
        for power, prefix in enumerate(_PREFIXES[1:], 1):
            count, rest = divmod(size, step**power)
            texts += [f"{count}{prefix}{mark}"] if count and not rest else []
    return min(texts, key=len)
