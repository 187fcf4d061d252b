"""What a delivery said: which event of which forge, and what may have changed. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from webhooks.messages import What


class Forge(StrEnum):
    """Who sent a delivery, by its headers."""

    GITHUB = "github"
    GITLAB = "gitlab"
    GITEA = "gitea"
    BITBUCKET = "bitbucket"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """`refs`: full names of branches and tags, and `pulls/<n>`, for the log; `note`: what was odd about it."""

    event: str
    what: frozenset[What] = frozenset()
    refs: tuple[str, ...] = ()
    note: str = ""


def plain(text: str) -> str:
    """Without what could be mistaken for another line of a log, or steer a terminal."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)
