"""A git remote's address: how it is reached, and apart from that the credentials somebody may have written into it."""

import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from dstack.model.bucket import Reach
from dstack.model.errors import Invalid

# git's own rule (git-fetch(1), GIT URLS): a colon before the first slash, so that `./a:b` is a path.
_SCP = re.compile(r"(?:[^/:@]+@)?(?:\[[^\]/]+\]|[^/:@]+):(?!//).*", re.DOTALL)
# `ext::command`: another program would speak for us.
_HELPER = re.compile(r"[A-Za-z0-9+.-]+::")
_WEB = frozenset({"http", "https"})
_SECURE_SHELL = frozenset({"ssh", "git+ssh", "ssh+git"})
_OTHERS = frozenset({"git"})
_FORGES = ("github.com", "gitlab.com")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """`url` is what git is given and people are shown: without credentials. `host` None: a path on this machine.

    `user` of an HTTP address, and `password`, are for git alone: the user may be a token.
    """

    url: str
    host: str | None = None
    user: str = field(default="", repr=False)
    password: str | None = field(default=None, repr=False)

    @property
    def reach(self) -> Reach:
        """How it is reached, by its host."""
        if self.host is None:
            return Reach.LOCAL
        host = self.host.lower().rstrip(".")
        forge = any(host == one or host.endswith(f".{one}") for one in _FORGES)
        return Reach.FORGE if forge else Reach.NETWORK


def parse_address(text: str) -> Address:
    """The parts of a URL, an scp-like `user@host:path`, or a path. Raises Invalid for what git can't be given."""
    if not text or text.startswith("-") or _HELPER.match(text) or any(not one.isprintable() for one in text):
        msg = f"{without_credentials(text)!r} can't be the address of a git remote"
        raise Invalid(msg)
    if "://" in text:
        return _from_url(text)
    if _SCP.fullmatch(text) and "/" not in text.partition(":")[0]:
        host = text.partition(":")[0].rpartition("@")[2]
        _check_host(host, text)
        return Address(url=text, host=host)
    return Address(url=text)


def without_credentials(url: str) -> str:
    """`url` as it may be shown and recorded: a token or password in it is for the user's own git alone."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    kept = user.partition(":")[0] + at if scheme in _SECURE_SHELL else ""
    return f"{scheme}{mark}{kept}{host}{slash}{path}"


def _from_url(text: str) -> Address:
    shown = without_credentials(text)
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        msg = f"{shown} is no URL: {error}"
        raise Invalid(msg) from error
    scheme = parts.scheme.lower()
    if scheme == "file":
        return Address(url=text)
    if scheme not in _WEB | _SECURE_SHELL | _OTHERS:
        msg = f"{shown} can't be a git remote: use https://, http://, ssh://, git://, HOST:PATH or a path"
        raise Invalid(msg)
    if not host:
        msg = f"{shown} names no host"
        raise Invalid(msg)
    _check_host(host, shown)
    if scheme not in _WEB:
        return Address(url=shown, host=host)
    return Address(url=shown, host=host, user=unquote(parts.username or ""), password=_password(parts))


def _password(parts: SplitResult) -> str | None:
    return None if parts.password is None else unquote(parts.password)


def _check_host(host: str, shown: str) -> None:
    """A host that begins with a dash would be an option of ssh; git refuses it too."""
    if host.startswith("-"):
        msg = f"{shown} can't be the address of a git remote"
        raise Invalid(msg)
