"""Why an image can't be had: a registry's or engine's words, read and explained. Pure but for our own name."""

import getpass

from dstack.model.job import Reason
from runner.engine_values import Refused
from runner.executor import StartFailed

FORBIDDEN = ("unauthorized", "denied", "authentication required", "no basic auth", "forbidden", "incorrect username")
FULL = "no space left on device"
# What a registry or the way to it says that may be well in a moment.
PASSING = (
    "timeout",
    "timed out",
    "deadline exceeded",
    "connection refused",
    "connection reset",
    "broken pipe",
    "no such host",
    "temporary failure",
    "server misbehaving",
    "network is unreachable",
    "no route to host",
    "request canceled",
    "eof",
    "toomanyrequests",
    "too many requests",
    "unexpected http status: 5",
    "unexpected status from",
    "internal server error",
    "bad gateway",
    "service unavailable",
    "broke off",
)


def is_passing(words: str) -> bool:
    """Whether trying again may help."""
    return any(text in words.lower() for text in PASSING) and not is_forbidden(words)


def is_forbidden(words: str) -> bool:
    """Whether it is the login that is missing or wrong."""
    return any(text in words.lower() for text in FORBIDDEN)


def why(name: str, refused: Refused) -> StartFailed:
    """The refusal, with what to do."""
    words = refused.words
    if is_forbidden(words):
        msg = (
            f"the registry doesn't give the image {name} to this runner: check the name, or log in with `docker login` "
            f"as the runner's user, {user()} ({words})"
        )
        return StartFailed(Reason.IMAGE_AUTH, msg)
    if FULL in words.lower():
        return StartFailed(Reason.DISK_FULL, f"there is no room for the image {name} on the runner: free some space")
    if is_passing(words):
        msg = f"the image {name} can't be pulled: the registry can't be reached, or is unwell; check its name ({words})"
        return StartFailed(Reason.IMAGE_PULL, msg)
    return StartFailed(Reason.IMAGE_PULL, f"the image {name} can't be pulled: check its name ({words})")


def user() -> str:
    """Who we are, for people."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unnamed"
