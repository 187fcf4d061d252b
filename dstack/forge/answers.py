"""What an answer of a forge means: an error for people, and how long to wait. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from dstack.model.errors import DstackError, Failed, Unavailable

# Nobody is waited for longer at a time, whatever is asked.
LONGEST = 3600.0
# GitHub's advice for a secondary limit that says no time (docs.github.com, best practices for using the REST API).
SECONDARY = 60.0
SHOWN = 200

_LIMITED = re.compile(r"rate limit|abuse detection|too many requests", re.IGNORECASE)


class Denied(Failed):
    """The token is refused, or isn't enough for this."""


class Absent(Failed):
    """It isn't there; GitHub says so, too, of what the token may not see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """An answer without its body. Names of `headers` in lower case. `message`: what the forge says, for people."""

    status: int
    headers: Mapping[str, str]
    message: str = ""


def error_of(head: Head, what: str, now: datetime) -> DstackError | None:
    """None for success. `what` was asked for; `now` stands in for the forge's clock where it tells no date."""
    if head.status < 300:  # noqa: PLR2004 (HTTP)
        return None
    said = f" ({head.message})" if head.message else ""
    if head.status == 429 or (head.status == 403 and _is_limit(head)):  # noqa: PLR2004
        wait = asked_wait(head.headers, now) or SECONDARY
        return Unavailable(f"{what}: the forge asks to wait {wait:.0f} s: its rate limit is reached", retry_after=wait)
    if head.status >= 500 or head.status in (408, 409, 425):  # noqa: PLR2004
        asked = asked_wait(head.headers, now)
        return Unavailable(f"{what}: the forge answers {head.status}{said}", retry_after=asked, away=True)
    if head.status in (401, 403):
        return Denied(f"{what}: the forge refuses the token, or it isn't allowed this: {head.status}{said}")
    if head.status in (404, 410):
        return Absent(f"{what}: the forge knows no such thing, or hides it from this token: {head.status}{said}")
    return Failed(f"{what}: the forge answers {head.status}{said}")


def exhausted(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds in which nothing more may be asked, though this answer was a good one; None: go on."""
    remaining = headers.get("x-ratelimit-remaining", headers.get("ratelimit-remaining", ""))
    return asked_wait(headers, now) if remaining.strip() == "0" else None


def asked_wait(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait, by `Retry-After`, else by when the limit is reset, read by the forge's own clock."""
    wait = _seconds(headers.get("retry-after", ""), headers, now)
    if wait is None:
        reset = headers.get("x-ratelimit-reset", headers.get("ratelimit-reset", "")).strip()
        # A moment in seconds since 1970 (GitHub, GitLab, Gitea).
        if reset.isascii() and reset.isdecimal() and len(reset) < 12:  # noqa: PLR2004 (a moment)
            wait = int(reset) - _clock(headers, now).timestamp()
    return None if wait is None else min(LONGEST, max(1.0, wait))


def _is_limit(head: Head) -> bool:
    """GitHub says 403 for both of its limits."""
    return (
        "retry-after" in head.headers
        or head.headers.get("x-ratelimit-remaining", "").strip() == "0"
        or _LIMITED.search(head.message) is not None
    )


def _seconds(text: str, headers: Mapping[str, str], now: datetime) -> float | None:
    text = text.strip()
    if text.isascii() and text.isdecimal() and len(text) < 12:  # noqa: PLR2004 (seconds)
        return float(text)
    moment = _date(text)
    return None if moment is None else (moment - _clock(headers, now)).total_seconds()


def _clock(headers: Mapping[str, str], now: datetime) -> datetime:
    return _date(headers.get("date", "")) or now


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found if found.tzinfo else None
