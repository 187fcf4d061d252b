"""HTTP to a forge: time limits, size limits, rate limits, conditional requests. The token goes to one origin only."""

import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

import httpx
import msgspec

from dstack import __version__
from dstack.forge.answers import SHOWN, Head, error_of, exhausted
from dstack.model.codec import decode, encode
from dstack.model.errors import Failed, Invalid, Unavailable

T = TypeVar("T")

TIMES = httpx.Timeout(10.0, connect=5.0)
# An answer that comes in drops is cut off.
WHOLE_SECONDS = 30.0
LIMIT = 8 * 1024 * 1024
ERROR_LIMIT = 64 * 1024
PAGE = 100
MOST_PAGES = 10
MOST_REDIRECTS = 3
# Pages that are remembered, to be asked for by their mark: so many, of this size at most.
REMEMBERED = 128
REMEMBERED_SIZE = 256 * 1024

_REDIRECTS = (301, 302, 307, 308)
_NOT_MODIFIED = 304


class _Told(msgspec.Struct):
    """What forges say of an error: text, or, in GitLab, a mapping of lists as well."""

    message: object = None
    error: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """An answer's body, and the URL of the next page."""

    data: bytes
    next: str | None = None


@dataclass(slots=True, kw_only=True)
class Client:
    """Requests below `api`. `headers` hold the token. `clock` is the wall's, `ticks` monotonic."""

    api: str
    headers: Mapping[str, str] = field(repr=False)
    http: httpx.Client
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ticks: Callable[[], float] = time.monotonic
    requests: int = 0
    _until: float = 0.0
    _pages: OrderedDict[str, tuple[str, _Page]] = field(default_factory=OrderedDict)

    def get(self, path: str, type_: type[T]) -> T:
        """What stands there, as a `type_`."""
        return self._read(self._page("GET", self._url(path)), type_)

    def pages(self, path: str, type_: type[T]) -> Iterator[T]:
        """What stands on the pages of a list, the first `MOST_PAGES` of them."""
        url: str | None = self._url(f"{path}{'&' if '?' in path else '?'}per_page={PAGE}")
        for _ in range(MOST_PAGES):
            if url is None:
                return
            page = self._page("GET", url)
            yield self._read(page, type_)
            url = page.next

    def send(self, method: str, path: str, body: object, type_: type[T]) -> T:
        """Write, and read the answer as a `type_`."""
        return self._read(self._page(method, self._url(path), encode(body)), type_)

    def delete(self, path: str) -> None:
        """Take it away."""
        self._page("DELETE", self._url(path))

    def _url(self, path: str) -> str:
        return f"{self.api}{path}"

    def _read(self, page: _Page, type_: type[T]) -> T:
        try:
            return decode(page.data, type_, "its answer", limit=LIMIT)
        except Invalid as error:
            msg = f"{self.api} doesn't answer like a forge: {error}"
            raise Unavailable(msg, away=True) from error

    def _page(self, method: str, url: str, body: bytes | None = None) -> _Page:
        """One request, with as many redirects as are sane; raises what the last answer means."""
        what = f"{method} {url}"
        for _ in range(MOST_REDIRECTS + 1):
            if (wait := self._until - self.ticks()) > 0:
                msg = f"{what}: the forge asked to wait {wait:.0f} s more"
                raise Unavailable(msg, retry_after=wait)
            kept = self._pages.get(url) if method == "GET" else None
            head, page = self._exchange(method, url, body, kept[0] if kept else None)
            if head.status == _NOT_MODIFIED and kept:
                self._pages.move_to_end(url)
                return kept[1]
            if head.status in _REDIRECTS:
                url = self._redirected(url, head, what)
                continue
            if error := error_of(head, what, self.clock()):
                if isinstance(error, Unavailable) and error.retry_after:
                    self._until = self.ticks() + error.retry_after
                raise error
            self._remember(method, url, head, page)
            return page
        msg = f"{what}: the forge redirects in a circle"
        raise Failed(msg)

    def _remember(self, method: str, url: str, head: Head, page: _Page) -> None:
        if wait := exhausted(head.headers, self.clock()):
            self._until = self.ticks() + wait
        mark = head.headers.get("etag", "")
        if method == "GET" and mark and mark.isascii() and mark.isprintable() and len(page.data) <= REMEMBERED_SIZE:
            self._pages[url] = (mark, page)
            while len(self._pages) > REMEMBERED:
                self._pages.popitem(last=False)

    def _redirected(self, url: str, head: Head, what: str) -> str:
        """The new URL, on the same origin: a token is for that alone."""
        try:
            new = httpx.URL(url).join(head.headers.get("location", ""))
        except httpx.InvalidURL as error:
            msg = f"{what}: the forge redirects to no address"
            raise Failed(msg) from error
        if _origin(new) != _origin(httpx.URL(url)):
            msg = f"{what}: the forge redirects to {new.host}, where the token isn't sent: is forge.api right?"
            raise Failed(msg)
        return str(new)

    def _exchange(self, method: str, url: str, body: bytes | None, mark: str | None) -> tuple[Head, _Page]:
        headers = {"User-Agent": f"dstack/{__version__}", "Accept-Encoding": "identity", **self.headers}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if mark is not None:
            headers["If-None-Match"] = mark
        self.requests += 1
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
        return head, _Page(data=data, next=self._next(url, link) if good else None)

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
        return str(new) if _origin(new) == _origin(httpx.URL(url)) else None


def open_http() -> httpx.Client:
    """Trusts the system's authorities (`SSL_CERT_FILE` names others), and obeys the environment's proxies."""
    return httpx.Client(timeout=TIMES, verify=ssl.create_default_context(), follow_redirects=False)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
