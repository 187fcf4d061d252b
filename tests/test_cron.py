"""Cron: standard meaning, time zones, and every slot once, also where clocks change."""

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dstack.model.cron import check_zone, last_slot, next_slot, parse_cron
from dstack.model.errors import Invalid
from dstack.model.triggers import Schedule

MINUTE = timedelta(minutes=1)
BERLIN = "Europe/Berlin"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def slots(cron: str, zone: str, after: str, until: str) -> list[str]:
    """On the wall of the zone, with the offset."""
    schedule, now, found = Schedule(cron=cron, zone=zone), at(after), []
    while (now := next_slot(schedule, now)) <= at(until):
        found.append(now.astimezone(ZoneInfo(zone)).isoformat(timespec="minutes"))
    return found


@pytest.mark.parametrize(
    ("cron", "days"),
    [
        ("0 0 * * 0", ["Sun"]),
        ("0 0 * * 7", ["Sun"]),
        ("0 0 * * sun", ["Sun"]),
        ("0 0 * * SUN", ["Sun"]),
        ("0 0 * * 1", ["Mon"]),
        ("0 0 * * 1-5", ["Mon", "Tue", "Wed", "Thu", "Fri"]),
        ("0 0 * * 5-7", ["Fri", "Sat", "Sun"]),
        ("0 0 * * fri-sun", ["Fri", "Sat", "Sun"]),
        ("0 0 * * 0,6", ["Sat", "Sun"]),
        ("0 0 * * */2", ["Tue", "Thu", "Sat", "Sun"]),
        ("0 0 * * 1/3", ["Mon", "Thu", "Sun"]),
        ("@weekly", ["Sun"]),
    ],
)
def test_the_days_of_the_week_are_those_of_standard_cron(cron: str, days: list[str]) -> None:
    found = slots(cron, "UTC", "2026-11-22T12:00", "2026-11-29T12:00")
    assert [datetime.fromisoformat(slot).strftime("%a") for slot in found] == days


def test_a_limited_day_of_the_month_or_of_the_week_is_enough() -> None:
    found = slots("0 0 13 * 5", "UTC", "2026-11-01T00:00", "2026-12-01T00:00")
    assert [slot[8:10] for slot in found] == ["06", "13", "20", "27"]
    both = slots("0 0 */10 * 2", "UTC", "2026-11-01T00:00", "2027-02-01T00:00")
    assert [slot[:10] for slot in both] == ["2026-12-01"]


def test_29_february_comes_also_after_a_century_without() -> None:
    assert next_slot(Schedule(cron="0 0 29 2 *"), at("2096-03-01T00:00")) == at("2104-02-29T00:00")
    assert next_slot(Schedule(cron="0 0 31 2 1"), at("2026-11-01T00:00")) == at("2027-02-01T00:00")


def test_a_time_that_the_clock_skips_comes_when_it_has_jumped() -> None:
    found = slots("30 2 * * *", BERLIN, "2026-03-28T00:00", "2026-03-31T00:00")
    assert found == ["2026-03-28T02:30+01:00", "2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]
    every = slots("*/20 1-3 * * *", BERLIN, "2026-03-29T00:00", "2026-03-29T03:00")
    assert [slot[11:16] for slot in every] == ["01:20", "01:40", "03:00", "03:20", "03:40"]


def test_a_time_that_the_clock_shows_twice_counts_the_first_time() -> None:
    found = slots("30 2 * * *", BERLIN, "2026-10-24T00:00", "2026-10-27T00:00")
    assert found == ["2026-10-24T02:30+02:00", "2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]
    assert next_slot(Schedule(cron="30 2 * * *", zone=BERLIN), at("2026-10-25T01:30")) == at("2026-10-26T01:30")


def test_a_day_that_a_zone_left_out_has_its_slots_when_the_next_begins() -> None:
    found = slots("0 12 * * *", "Pacific/Apia", "2011-12-28T23:00", "2011-12-31T12:00")
    assert [slot[:16] for slot in found] == ["2011-12-29T12:00", "2011-12-31T00:00", "2011-12-31T12:00"]


def test_the_last_slot_is_found_however_many_were_missed() -> None:
    minutely = Schedule(cron="* * * * *")
    assert last_slot(minutely, at("2006-01-01T00:00"), at("2026-01-01T00:00:30")) == at("2026-01-01T00:00")
    assert last_slot(minutely, at("2026-01-01T00:00"), at("2026-01-01T00:00:59")) is None
    assert last_slot(minutely, at("2026-01-01T00:00"), at("2026-01-01T00:01")) == at("2026-01-01T00:01")
    assert last_slot(Schedule(cron="0 0 29 2 *"), at("2025-01-01T00:00"), at("2047-01-01T00:00")) == at("2044-02-29")


FIELDS = (
    st.sampled_from(["*", "0", "*/7", "5-9", "10-50/20", "0,30,59", "58/1"]),
    st.sampled_from(["*", "0", "2", "*/5", "22-23", "1,2,3"]),
    st.sampled_from(["*", "*", "1", "29-31", "*/9", "15,28"]),
    st.sampled_from(["*", "*", "*/2", "mar", "10-11"]),
    st.sampled_from(["*", "*", "0", "7", "mon-fri", "sat,sun", "*/3"]),
)
CRONS = st.tuples(*FIELDS).map(" ".join)
STARTS = st.sampled_from(["2026-03-28T20:00", "2026-10-24T20:00", "2026-02-28T12:00", "2026-12-31T20:00"])


def wanted(cron: str, wall: datetime) -> bool:
    """Whether this time on the wall is meant, reckoned the plain way."""
    names = {"mar": "3", "mon": "1", "fri": "5", "sat": "6", "sun": "0"}
    fields = re.sub("|".join(names), lambda found: names[found[0]], cron).split()
    now = (wall.minute, wall.hour, wall.day, wall.month, wall.isoweekday() % 7)
    good = [fits(field, value, most) for field, value, most in zip(fields, now, (59, 23, 31, 12, 7), strict=True)]
    good[4] = good[4] or (now[4] == 0 and fits(fields[4], 7, 7))
    least_one = not fields[2].startswith("*") and not fields[4].startswith("*")
    days = good[2] or good[4] if least_one else good[2] and good[4]
    return good[0] and good[1] and days and good[3]


def fits(field: str, value: int, most: int) -> bool:
    least = {31: 1, 12: 1}.get(most, 0)
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        low = least if span == "*" else int(first)
        high = int(last) if dash else most if span == "*" or step else low
        if value in range(low, high + 1, int(step or 1)):
            return True
    return False


@settings(max_examples=40, deadline=None)
@given(CRONS, st.sampled_from(["UTC", BERLIN, "America/St_Johns", "Australia/Lord_Howe"]), STARTS)
def test_slots_are_the_minutes_that_are_meant_each_once(cron: str, zone: str, start: str) -> None:
    where, begin = ZoneInfo(zone), at(start)
    expected, shown = set(), set()
    walls: list[datetime] = []
    for number in range(1, 24 * 60):
        now = begin + number * MINUTE
        wall = now.astimezone(where).replace(tzinfo=None)
        skipped = [walls[-1] + n * MINUTE for n in range(1, (wall - walls[-1]) // MINUTE)] if walls else []
        if any(wanted(cron, one) and one not in shown for one in [*skipped, wall]):
            expected.add(now)
        shown.update([*skipped, wall])
        walls.append(wall)
    schedule, found, now = Schedule(cron=cron, zone=zone), [], begin
    before = shown_before(begin, where)
    while (now := next_slot(schedule, now)) < begin + timedelta(days=1):
        found.append(now)
    assert [slot for slot in sorted(expected) if slot.astimezone(where).replace(tzinfo=None) not in before] == found
    if found:
        until = begin + timedelta(days=1) - MINUTE
        assert last_slot(schedule, begin, until) == found[-1]


def shown_before(begin: datetime, where: ZoneInfo) -> set[datetime]:
    """What the clock showed in the two hours before."""
    return {(begin - n * MINUTE).astimezone(where).replace(tzinfo=None) for n in range(120)}


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("", "write minute, hour, day, month and weekday, like `30 4 * * 1-5`"),
        ("* * * * * *", "can't be cron"),
        ("@reboot", "can't be cron"),
        ("60 * * * *", "'60' can't be the minute: it goes from 0 to 59"),
        ("* 24 * * *", "'24' can't be the hour"),
        ("* * 0 * *", "'0' can't be the day of the month: it goes from 1 to 31"),
        ("* * * 13 *", "it goes from 1 to 12, or jan to dec"),
        ("* * * * 8", "it goes from 0 to 7, or sun to sat"),
        ("5-1 * * * *", "it goes backwards"),
        ("*/0 * * * *", "a step of 0"),
        ("1--2 * * * *", "write a number, `*`, `a-b`, or one of them with `/step`"),
        ("*-5 * * * *", "write a number"),
        ("-1 * * * *", "write a number"),
        ("1,,2 * * * *", "write a number"),
        ("0 0 30 2 *", "names a day that none of its months has"),
        ("\u0661 * * * *", "can't be the minute"),
        ("* * * * mon#2", "can't be the day of the week"),
        ("9" * 600, "600 characters are too many"),
    ],
)
def test_what_is_no_cron(cron: str, words: str) -> None:
    with pytest.raises(Invalid, match=re.escape(words)):
        parse_cron(cron)


@given(st.text(alphabet="0123456789*/-,@ abcmonsu", max_size=30))
def test_any_text_is_cron_or_is_refused(text: str) -> None:
    try:
        parse_cron(text)
    except Invalid:
        return
    start = at("2026-01-01T00:00")
    assert next_slot(Schedule(cron=text), start) > start


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Argentina/Ushuaia", "Etc/GMT+5", "EST5EDT"])
def test_zones(zone: str) -> None:
    assert check_zone(zone) == zone


@pytest.mark.parametrize(
    "zone", ["", "Mars/Phobos", "/etc/localtime", "..", "zone.tab", "America", "right/UTC", "utc+1", "x" * 999]
)
def test_what_is_no_zone(zone: str) -> None:
    with pytest.raises(Invalid, match="is no time zone"):
        check_zone(zone)
