"""`GET /healthz`, `/readyz` and `/metrics`: for whoever watches over the controller."""

from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from webhooks.link import Link
from webhooks.measures import Measures

ANSWER_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the three pages say."""

    link: Link
    measures: Measures

    def routes(self) -> list[Route]:
        """Their paths."""
        return [Route("/healthz", self.alive), Route("/readyz", self.ready), Route("/metrics", self.metrics)]

    async def alive(self, _request: Request) -> Response:
        """The process lives."""
        return PlainTextResponse("ok\n")

    async def ready(self, _request: Request) -> Response:
        """The controller answers, and has read some repository; how long ago, for each, in seconds."""
        answers = await self.link.ask(ANSWER_SECONDS)
        polled = {one.name: None if one.polled is None else round(one.polled, 1) for one in self.link.standings}
        ready = answers and any(seconds is not None for seconds in polled.values())
        return JSONResponse({"ready": ready, "answers": answers, "polled": polled}, 200 if ready else 503)

    async def metrics(self, _request: Request) -> Response:
        """As the controller told last, where it doesn't answer now."""
        await self.link.ask(ANSWER_SECONDS)
        return Response(self.measures.page(), headers={"content-type": CONTENT_TYPE_LATEST})
