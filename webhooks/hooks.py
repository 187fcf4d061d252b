"""`POST /hooks/<p>`: a forge's delivery. Believed by its signature alone, answered at once; it only wakes somebody."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from webhooks.bodies import Bodies, Full, Gone, TooLarge, Unread
from webhooks.deliveries import Deliveries
from webhooks.events import classify, delivery_id, sender
from webhooks.messages import Served, What
from webhooks.repositories import Repositories, Repository
from webhooks.signatures import Headers, refusal

LOG = logging.getLogger(__name__)

UNSET = "no webhook secret is set: give the controller DSTACK_WEBHOOK_SECRET, or name a webhook-secret-file"
NOBODY = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """An answer, and the word for it in the metrics."""

    word: str
    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)


_AGAIN = {"retry-after": "10"}
# What is still on its way isn't read.
_CLOSE = {"connection": "close"}
NOT_FOUND = Result(word="not-found", status=404, text="not found")
WRONG_METHOD = Result(word="wrong-method", status=405, text="deliveries are POSTed here", headers={"allow": "POST"})
NOT_YET = Result(word="not-found", status=503, text="try again soon", headers={**_AGAIN, **_CLOSE})
DEAF = Result(
    word="deaf", status=503, text="the controller doesn't answer: try again soon", headers={**_AGAIN, **_CLOSE}
)
UNREAD: Mapping[type[Unread], Result] = {
    TooLarge: Result(word="too-large", status=413, text="it has more than 25 MiB", headers=_CLOSE),
    Full: Result(word="full", status=503, text="too much is at hand: try again soon", headers={**_AGAIN, **_CLOSE}),
    Gone: Result(word="cut-off", status=400, text="it was cut off, or came too slowly", headers=_CLOSE),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """The ASGI application of this path. `wake` tells the controller; `deaf`: whether that one is silent."""

    repositories: Repositories
    bodies: Bodies
    deliveries: Deliveries
    wake: Callable[[str, What], None]
    deaf: Callable[[], bool]
    counted: Callable[[str, str, str, float], None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        began = time.perf_counter()
        headers: Headers = dict(scope["headers"])
        repository = self.repositories.at(scope["path_params"]["path"])
        result = await self._result(scope["method"], headers, repository, receive)
        name = repository.served.name if repository else NOBODY
        self.counted(name, sender(headers)[0].value, result.word, time.perf_counter() - began)
        answer = PlainTextResponse(f"{result.text}\n", result.status, result.headers)
        await answer(scope, receive, send)

    async def _result(self, method: str, headers: Headers, repository: Repository | None, receive: Receive) -> Result:
        if method != "POST":  # at any path: which is one of ours isn't told
            return WRONG_METHOD
        if repository is None and self.repositories.any_path:
            # A forge may send no more after a 404; after a 503 it tries again.
            return NOT_FOUND if self.repositories.complete else NOT_YET
        if repository is None or not repository.served.secrets:
            return _refused(repository.served.name if repository else NOBODY, UNSET)
        return DEAF if self.deaf() else await self._read(repository.served, headers, receive)

    async def _read(self, served: Served, headers: Headers, receive: Receive) -> Result:
        try:
            body = await self.bodies.read(headers, receive)
        except Unread as error:
            result = UNREAD[type(error)]
            LOG.warning("a delivery for %s is refused: %s", served.name, result.text)
            return result
        now = time.time()
        if problem := refusal(headers, body, served.secrets, now):
            return _refused(served.name, problem)
        return self._heard(served.name, headers, body, now)

    def _heard(self, name: str, headers: Headers, body: bytes, now: float) -> Result:
        news = classify(headers, body)
        about, event = ", ".join(news.refs), news.event or "delivery"
        if news.note:
            LOG.warning("a delivery for %s (%s) is odd: %s", name, event, news.note)
        if not news.what:
            LOG.debug("%s for %s changes nothing here", event, name)
            return Result(word="ignored", status=200, text=f"{event}: nothing to do here")
        if self.deliveries.repeated(name, delivery_id(headers), body, now):
            LOG.debug("%s for %s came before", event, name)
            return Result(word="repeated", status=200, text=f"{event}: it came before, and was heard")
        LOG.info("%s for %s: %s", event, name, about or "no ref is named")
        for what in sorted(news.what):
            self.wake(name, what)
        return Result(word="woke", status=202, text=f"{event}: {about or 'heard'}")


def _refused(name: str, problem: str) -> Result:
    LOG.warning("a delivery for %s is refused: %s", name, problem)
    return Result(word="refused", status=401, text=problem)
