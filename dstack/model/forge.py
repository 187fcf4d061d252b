"""The shared setting `forge`: what is reported to the forge that the code is on, and how that forge is reached."""

from enum import StrEnum
from urllib.parse import urlsplit

from dstack.model.codec import Value
from dstack.model.errors import Invalid


class ForgeKind(StrEnum):
    """Whose API it is. Forgejo's is Gitea's."""

    GITHUB = "github"
    GITLAB = "gitlab"
    GITEA = "gitea"


class Reported(StrEnum):
    """Which runs commits get a status of: those that triggers made, those of unchanged commits as well, or none."""

    TRIGGERED = "triggered"
    ALL = "all"
    NOTHING = "nothing"


class ForgeSettings(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`kind` and `api` are for instances of one's own. `comment`: pull requests get one.

    `web`: the address of a web page of dstack's; a status then links to `<web>/runs/<run>`.
    """

    kind: ForgeKind | None = None
    api: str | None = None
    report: Reported = Reported.TRIGGERED
    comment: bool = True
    web: str | None = None

    def check(self) -> None:
        """Raises Invalid for addresses that can't be."""
        for key, url in (("api", self.api), ("web", self.web)):
            if url is not None and not _is_address(url):
                msg = f"forge.{key} is {url[:200]!r}; give an address like https://forge.example.org/api/v4"
                raise Invalid(msg)


def _is_address(url: str) -> bool:
    """A web address without credentials, query or fragment."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and not any(mark in url for mark in ' "<>\\^`{|}')
    return (
        plain
        and parts.scheme in ("https", "http")
        and bool(parts.hostname)
        and not ("@" in parts.netloc or parts.query or parts.fragment)
    )
