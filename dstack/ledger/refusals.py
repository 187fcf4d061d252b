"""A refusal of a remote, a forge, ssh or curl as an error that says what happened and the way out. Pure."""

import re

from dstack.ledger.causes import CAUSES
from dstack.model.errors import Failed, Unavailable

_RETRY_AFTER = re.compile(r"retry[- ]after\D{0,3}(\d{1,5})", re.IGNORECASE)
_LONGEST_WAIT = 3600.0
# A URL in git's own words may hold what a redirect or a rule brought into it.
_LOGIN = re.compile(r"(?<=://)[^/\s@'\"]+@")
_COMPILED = tuple((re.compile("|".join(cause.said), re.DOTALL), cause) for cause in CAUSES)


def explain(text: str, url: str, did: str) -> Failed | Unavailable | None:
    """The error for what was said; None where it is nothing known. `did`: what failed, like "refused the push"."""
    cause = next((cause for pattern, cause in _COMPILED if pattern.search(text)), None)
    if cause is None:
        return None
    whole = f"{url} {did}: {cause.what} ({quoted(text)}): {cause.way}"
    return Failed(whole) if cause.lasting else Unavailable(whole, retry_after=retry_after(text), away=cause.away)


def quoted(text: str) -> str:
    """The words that say most, on one line, without what may be a credential."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if re.match(r"(?:remote: )?(?:fatal|error|ERROR|GitLab)\b", line)]
    best = told[0] if told else lines[0] if lines else ""
    return unlogged(re.sub(r"^(?:remote: )?(?:fatal: |error: )?", "", best))[:300]


def unlogged(text: str) -> str:
    """The text with the logins in its URLs left out."""
    return _LOGIN.sub("", text)


def retry_after(text: str) -> float | None:
    """The seconds that the other side asked us to wait, where git shows it."""
    found = _RETRY_AFTER.search(text)
    return min(float(found[1]), _LONGEST_WAIT) if found else None
