"""The webhook by which a forge tells a controller of pushes: there is one, however often it is asked for."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from dstack.forge.forge import Forge, Hook
from dstack.model.errors import Failed, Invalid, Unavailable
from dstack.model.hookpath import HOOKS, LENGTH

T = TypeVar("T")

TRIES = 4
FIRST_WAIT = 1.0
# Who is asked to wait longer is told so, and comes again.
LONGEST_WAIT = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What was done. `others`: more hooks that lead to the same controller."""

    created: bool
    others: tuple[str, ...] = ()


def check_public(url: str) -> str:
    """The address a controller is reached at, without a slash at its end. Raises Invalid."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("https", "http") or not parts.hostname or "@" in parts.netloc:
        msg = "--webhook takes the address that the forge reaches the controller at, like https://dstack.example.org"
        raise Invalid(msg)
    if parts.query or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        msg = "--webhook takes an address with nothing behind its path, like https://dstack.example.org/dstack"
        raise Invalid(msg)
    return re.sub(rf"{HOOKS}[0-9a-f]{{{LENGTH}}}$", "", url).rstrip("/")


def keep_hook(forge: Forge, hook: Hook) -> Kept:
    """Create the hook, or change the one that leads there, also by another secret's path. Raises DstackError."""
    before = forge.hooks()
    number = _ours(before, hook.url)
    if number is None:
        try:
            forge.add_hook(hook)
        except Failed:
            # Somebody else was faster, or an earlier try of ours got through after all.
            before = forge.hooks()
            number = _ours(before, hook.url)
            if number is None:
                raise
        else:
            return Kept(created=True)
    forge.change_hook(number, hook)
    leading = sorted(one for one, url in before.items() if one != number and _base(url) == _base(hook.url))
    return Kept(created=False, others=tuple(before[one] for one in leading))


def patiently(call: Callable[[], T], *, sleep: Callable[[float], None], jitter: Callable[[], float]) -> T:
    """Try again what can be tried again while the forge is away for a moment. `jitter`: from 0 to 1."""
    for number in range(TRIES - 1):
        try:
            return call()
        except Unavailable as error:
            wait = max(FIRST_WAIT * 2.0**number * (0.5 + jitter()), error.retry_after or 0.0)
            if wait > LONGEST_WAIT:
                raise
            sleep(wait)
    return call()


def _ours(hooks: Mapping[int, str], url: str) -> int | None:
    """The hook with this URL, else the first that leads to the same controller."""
    same = sorted(number for number, one in hooks.items() if one == url)
    near = sorted(number for number, one in hooks.items() if _base(one) == _base(url))
    return next(iter([*same, *near]), None)


def _base(url: str) -> str:
    """Without what the secret makes of it; a URL of another kind is its own."""
    return re.sub(rf"(?<={HOOKS})[0-9a-f]{{{LENGTH}}}$", "", url)
