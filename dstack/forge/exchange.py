"""One HTTP exchange with a forge: its time, its size, and what went wrong in words without the token."""

import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httpx
import msgspec

from dstack import __version__
from dstack.forge.answers import SHOWN, Head
from dstack.model.errors import Failed, Unavailable

TIMES = httpx.Timeout(10.0, connect=5.0)
# An answer that comes in drops is cut off.
WHOLE_SECONDS = 30.0
LIMIT = 8 * 1024 * 1024
ERROR_LIMIT = 64 * 1024


class _Told(msgspec.Struct):
    """What forges say of an error: text, or, in GitLab, a mapping of lists as well."""

    message: object = None
    error: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """An answer's body, and the URL of the next page on the same origin."""

    data: bytes
    next: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """`headers` hold the token; `ticks` are monotonic seconds."""

    headers: Mapping[str, str] = field(repr=False)
    http: httpx.Client
    ticks: Callable[[], float] = time.monotonic

    def ask(self, method: str, url: str, body: bytes | None, mark: str | None) -> tuple[Head, Page]:
        """`mark`: of what is known already. Raises Unavailable where no whole answer comes, Failed for no address."""
        headers = {"User-Agent": f"dstack/{__version__}", "Accept-Encoding": "identity", **self.headers}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if mark is not None:
            headers["If-None-Match"] = mark
        try:
            with self.http.stream(method, url, headers=headers, content=body) as answer:
                found = {name.lower(): value for name, value in answer.headers.items()}
                good = answer.status_code < 300  # noqa: PLR2004 (HTTP)
                data = self._body(answer, LIMIT if good else ERROR_LIMIT, whole=good)
                link = answer.links.get("next", {}).get("url")
        except httpx.InvalidURL as error:
            msg = f"{url} is no address that can be asked: {error}"
            raise Failed(msg) from error
        except (httpx.HTTPError, httpx.StreamError, ssl.SSLError, OSError, ValueError) as error:
            why = self._said(str(error) or type(error).__name__)
            trust = "; SSL_CERT_FILE names an authority of your own" if "CERTIFICATE_VERIFY_FAILED" in why else ""
            msg = f"{method} {url}: the forge can't be reached: {why}{trust}"
            raise Unavailable(msg, away=True) from error
        head = Head(status=answer.status_code, headers=found, message="" if good else self._message(data))
        return head, Page(data=data, next=self._next(url, link) if good else None)

    def _body(self, answer: httpx.Response, limit: int, *, whole: bool) -> bytes:
        """As sent: what comes compressed although we asked for plain text could unfold to any size."""
        if whole and answer.headers.get("content-encoding", "identity") != "identity":
            msg = "it compresses what was asked for plain"
            raise ValueError(msg)
        end, parts, size = self.ticks() + WHOLE_SECONDS, [], 0
        for chunk in answer.iter_raw():
            parts.append(chunk)
            size += len(chunk)
            if size > limit and not whole:
                break
            if size > limit:
                msg = f"its answer is larger than {limit} bytes"
                raise ValueError(msg)
            if self.ticks() > end:
                msg = f"its answer took longer than {WHOLE_SECONDS:g} s"
                raise ValueError(msg)
        return b"".join(parts)[:limit]

    def _message(self, data: bytes) -> str:
        """The forge's own words about an error, short."""
        try:
            told = msgspec.json.decode(data, type=_Told)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            return ""
        said = told.message or told.error
        return self._said(said if isinstance(said, str) else "" if said is None else str(said))

    def _said(self, text: str) -> str:
        """Printable, short, and without the token should it be in there."""
        for value in self.headers.values():
            secret = value.rpartition(" ")[2]
            text = text.replace(secret, "***") if len(secret) > 3 else text  # noqa: PLR2004 (a word)
        plain = " ".join("".join(one if one.isprintable() else " " for one in text).split())
        return plain[:SHOWN]

    def _next(self, url: str, link: str | None) -> str | None:
        """The next page, if it is where this one was."""
        if link is None:
            return None
        try:
            new = httpx.URL(url).join(link)
        except httpx.InvalidURL:
            return None
        return str(new) if origin(new) == origin(httpx.URL(url)) else None


def open_http() -> httpx.Client:
    """Trusts the system's authorities (`SSL_CERT_FILE` names others), and obeys the environment's proxies."""
    return httpx.Client(timeout=TIMES, verify=ssl.create_default_context(), follow_redirects=False)


def origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """What a token is for."""
    return url.scheme, url.host, url.port
