"""Standard cron in a time zone: is this a line of it, and which slots does it have. By APScheduler.

Slots are told by the clock on the wall. One that the clock skips comes when it has jumped; one that it shows twice
counts the first time: so every slot comes once, in order.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from dstack.model.errors import Invalid
from dstack.model.problems import nearest, shown
from dstack.model.triggers import Schedule

if TYPE_CHECKING:
    from apscheduler.triggers.cron import CronTrigger  # its import costs 100 ms that only a schedule needs

MAX_CRON = 500
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
ZONE = r"[A-Za-z0-9_+-]{1,40}(/[A-Za-z0-9_+-]{1,40}){0,2}"

_ZONE = re.compile(ZONE, re.ASCII)
_MACHINES = ("localtime", "posixrules", "Factory", "posix/", "right/")  # files that aren't zones, or differ by machine
_PART = re.compile(r"(?P<first>\*|[a-z0-9]+)(?:-(?P<last>[a-z0-9]+))?(?:/(?P<step>[0-9]{1,4}))?", re.ASCII)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class _Field(NamedTuple):
    name: str
    least: int
    most: int
    words: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 7, _DAYS),
)


class Crontab(NamedTuple):
    """The numbers of each field. A day is meant by either of its fields where neither begins with `*`, as in cron."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool


@lru_cache(maxsize=256)
def parse_cron(text: str) -> Crontab:
    """The meaning of five fields. Raises Invalid, with what would be right; also where no day is ever meant."""
    if len(text) > MAX_CRON:
        msg = f"{len(text)} characters are too many for a cron line: at most {MAX_CRON}"
        raise Invalid(msg)
    fields = _NICKNAMES.get(text.strip().lower(), text).split()
    if len(fields) != len(_FIELDS):
        msg = f"{shown(text)} can't be cron: write minute, hour, day, month and weekday, like `30 4 * * 1-5`"
        raise Invalid(msg)
    minutes, hours, days, months, weekdays = (
        frozenset(_numbers(one, field)) for one, field in zip(fields, _FIELDS, strict=True)
    )
    either = not fields[2].startswith("*") and not fields[4].startswith("*")
    found = Crontab(minutes, hours, days, months, frozenset(day % 7 for day in weekdays), either)
    if not either and not _has_day(found):
        msg = f"{shown(text)} names a day that none of its months has"
        raise Invalid(msg)
    return found


def check_zone(name: str) -> str:
    """`name` itself if it is a time zone. Raises Invalid, with the nearest one."""
    if _ZONE.fullmatch(name) and not name.startswith(_MACHINES):
        try:
            return ZoneInfo(name).key
        except (LookupError, ValueError, OSError):
            pass
    hint = nearest(name, available_timezones()) or ": write one like `UTC` or `Europe/Berlin`"
    msg = f"{shown(name)} is no time zone{hint}"
    raise Invalid(msg)


def next_slot(schedule: Schedule, after: datetime) -> datetime:
    """The first slot later than `after`, in UTC. The schedule has been checked."""
    zone = ZoneInfo(schedule.zone)
    wall = after.astimezone(zone).replace(tzinfo=None, second=0, microsecond=0)
    while True:
        wall = _next_wall(schedule.cron, wall)
        slot = _instant(wall, zone)
        if slot > after:
            return slot


def last_slot(schedule: Schedule, after: datetime, until: datetime) -> datetime | None:
    """The last slot later than `after` that is not later than `until`; None where there is none."""
    found = next_slot(schedule, after)
    if found > until:
        return None
    late = until
    while (following := next_slot(schedule, found)) <= until:
        middle = found + (late - found) / 2
        slot = next_slot(schedule, middle)
        if slot <= until:
            found = max(slot, following)
        else:
            late = middle
    return found


def _numbers(text: str, field: _Field) -> Iterator[int]:
    for part in text.lower().split(","):
        found = _PART.fullmatch(part)
        if not found or (found["first"] == "*" and found["last"]):
            msg = f"{shown(part)} can't be the {field.name}: write a number, `*`, `a-b`, or one of them with `/step`"
            raise Invalid(msg)
        step = int(found["step"] or 1)
        first, last = field.least, field.most
        if found["first"] != "*":
            first = _number(found["first"], field)
            last = _number(found["last"], field) if found["last"] else field.most if found["step"] else first
        if field.words is _DAYS and last < first and found["last"] == "sun":
            last = field.most
        if not step or last < first:
            msg = f"{shown(part)} can't be the {field.name}: it {'goes backwards' if step else 'has a step of 0'}"
            raise Invalid(msg)
        yield from range(first, last + 1, step)


def _number(text: str, field: _Field) -> int:
    if text in field.words:
        return field.words.index(text) + (field.least if field.words is _MONTHS else 0)
    if text.isdecimal() and len(text) <= len("1234") and field.least <= int(text) <= field.most:
        return int(text)
    words = f", or {field.words[0]} to {field.words[-1]}" if field.words else ""
    msg = f"{shown(text)} can't be the {field.name}: it goes from {field.least} to {field.most}{words}"
    raise Invalid(msg)


def _next_wall(cron: str, wall: datetime) -> datetime:
    """The next time on the wall, where every day has 24 hours."""
    start = (wall + MINUTE).replace(tzinfo=UTC)
    found = (trigger.get_next_fire_time(None, start) for trigger in _triggers(cron))
    earliest: datetime = min(found)
    return earliest.replace(tzinfo=None)


@lru_cache(maxsize=256)
def _triggers(cron: str) -> "tuple[CronTrigger, ...]":
    from apscheduler.triggers.cron import CronTrigger  # noqa: PLC0415 (its import costs 100 ms)

    found = parse_cron(cron)
    fields = {
        "minute": _listed(found.minutes),
        "hour": _listed(found.hours),
        "month": _listed(found.months),
        "timezone": UTC,
    }
    days = _listed(found.days)
    weekdays = _listed((day - 1) % 7 for day in found.weekdays)  # it calls Monday 0, cron Sunday
    if not found.either:
        return (CronTrigger(day=days, day_of_week=weekdays, **fields),)
    by_weekday = CronTrigger(day_of_week=weekdays, **fields)
    return (CronTrigger(day=days, **fields), by_weekday) if _has_day(found) else (by_weekday,)


def _has_day(found: Crontab) -> bool:
    return min(found.days) <= max(_LONGEST[month - 1] for month in found.months)


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(map(str, sorted(numbers)))


def _instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """When the clock shows this the first time; where it skips it, when it has jumped."""
    late = wall.replace(tzinfo=zone).astimezone(UTC)
    if late.astimezone(zone).replace(tzinfo=None) == wall:
        return late
    early = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    offset = late.astimezone(zone).utcoffset()
    while late - early > SECOND:
        middle = (early + (late - early) / 2).replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == offset:
            late = middle
        else:
            early = middle
    return late
