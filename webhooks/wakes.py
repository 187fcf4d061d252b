"""`GET /wake/<p>` and `POST /poke/<p>`: who has a token waits for a change, or says that there is one."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from webhooks.messages import What
from webhooks.repositories import Repositories, Repository

# Proxies commonly hang up after 60 s of silence.
LONGEST_SECONDS = 50.0
WAITING = 4000

_NUMBER = re.compile(r"[0-9]{1,18}")
_BEARER = b"bearer "


@dataclass(slots=True, kw_only=True)
class Wakes:
    """The ASGI application of `/wake/<p>`. `counted` is told of one more (1) or one less (-1) that waits."""

    repositories: Repositories
    counted: Callable[[int], None]
    longest: float = LONGEST_SECONDS
    most: int = WAITING
    open: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers `{"change": M}` as soon as M is another number than `since`, and at the latest after 50 s."""
        found = _admitted(scope, "GET", self.repositories)
        if not isinstance(found, Repository):
            await found(scope, receive, send)
            return
        since = _since(scope)
        if since is None:
            await _no("since is a number: of the change seen last", 400)(scope, receive, send)
            return
        # Also where `since` is greater: it is of another time.
        if since == found.number:
            if self.open >= self.most:
                await _no("too many are waiting: poll instead", 503, {"retry-after": "60"})(scope, receive, send)
                return
            if not await self._wait(found, receive):
                return
        await JSONResponse({"change": found.number})(scope, receive, send)

    async def _wait(self, repository: Repository, receive: Receive) -> bool:
        """Whether there is still somebody to be answered."""
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        gone = asyncio.ensure_future(_gone(receive))
        repository.waiting.add(changed)
        self.open += 1
        self.counted(1)
        try:
            await asyncio.wait({changed, gone}, timeout=self.longest, return_when=asyncio.FIRST_COMPLETED)
            return not gone.done()
        finally:
            self.open -= 1
            self.counted(-1)
            repository.waiting.discard(changed)
            gone.cancel()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pokes:
    """The ASGI application of `/poke/<p>`: state may have changed, says somebody who has pushed."""

    repositories: Repositories
    wake: Callable[[str, What], None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A body isn't read."""
        found = _admitted(scope, "POST", self.repositories)
        if not isinstance(found, Repository):
            await found(scope, receive, send)
            return
        self.wake(found.served.name, What.STATE)
        await PlainTextResponse("heard\n", 202)(scope, receive, send)


def _admitted(scope: Scope, method: str, repositories: Repositories) -> Repository | ASGIApp:
    """The repository that is meant, by who may; else what to answer."""
    if scope["method"] != method:
        return _no(f"this is for {method}", 405, {"allow": method})
    repository = repositories.at(scope["path_params"]["path"])
    if repository is None:
        return _no("not found", 404)
    given = dict(scope["headers"]).get(b"authorization", b"")
    token = given[len(_BEARER) :].strip() if given.lower().startswith(_BEARER) else b""
    if not repository.admits(token):
        return _no("a token is needed: Authorization: Bearer TOKEN", 401, {"www-authenticate": "Bearer"})
    return repository


def _since(scope: Scope) -> int | None:
    """0 where it isn't given; None where it is no number."""
    try:
        given = parse_qs(scope["query_string"].decode("ascii"), max_num_fields=8).get("since", ["0"])[-1]
    except ValueError:
        return None
    return int(given) if _NUMBER.fullmatch(given) else None


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _no(text: str, status: int, headers: dict[str, str] | None = None) -> PlainTextResponse:
    return PlainTextResponse(f"{text}\n", status, headers)
