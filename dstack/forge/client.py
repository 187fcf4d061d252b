"""Requests to a forge: rate limits, pages, conditional requests. The token goes to one origin only."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

import httpx

from dstack.forge.answers import Head, error_of, exhausted
from dstack.forge.exchange import LIMIT, Exchange, Page, origin
from dstack.model.codec import decode, encode
from dstack.model.errors import Failed, Invalid, Unavailable

T = TypeVar("T")

PAGE = 100
MOST_PAGES = 10
MOST_REDIRECTS = 3
# Pages that are remembered, to be asked for by their mark: so many, of this size at most.
REMEMBERED = 128
REMEMBERED_SIZE = 256 * 1024

_REDIRECTS = (301, 302, 307, 308)
_NOT_MODIFIED = 304


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
    _pages: OrderedDict[str, tuple[str, Page]] = field(default_factory=OrderedDict)

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

    def _read(self, page: Page, type_: type[T]) -> T:
        try:
            return decode(page.data, type_, "its answer", limit=LIMIT)
        except Invalid as error:
            msg = f"{self.api} doesn't answer like a forge: {error}"
            raise Unavailable(msg, away=True) from error

    def _page(self, method: str, url: str, body: bytes | None = None) -> Page:
        """One request, with as many redirects as are sane; raises what the last answer means."""
        what = f"{method} {url}"
        for _ in range(MOST_REDIRECTS + 1):
            if (wait := self._until - self.ticks()) > 0:
                msg = f"{what}: the forge asked to wait {wait:.0f} s more"
                raise Unavailable(msg, retry_after=wait)
            kept = self._pages.get(url) if method == "GET" else None
            self.requests += 1
            exchange = Exchange(headers=self.headers, http=self.http, ticks=self.ticks)
            head, page = exchange.ask(method, url, body, kept[0] if kept else None)
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

    def _remember(self, method: str, url: str, head: Head, page: Page) -> None:
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
        if origin(new) != origin(httpx.URL(url)):
            msg = f"{what}: the forge redirects to {new.host}, where the token isn't sent: is forge.api right?"
            raise Failed(msg)
        return str(new)
