"""The HTTP protocol with bounds that uvicorn leaves open: how large a head is, and how long a request takes."""

import asyncio
import logging
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

LOG = logging.getLogger(__name__)

HEAD_LIMIT = 32 * 1024
# From its first byte to its last: GitHub and GitLab themselves give up after 10 s.
REQUEST_SECONDS = 20.0

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class GuardedProtocol(HttpToolsProtocol):
    """A connection is closed where a request's head is too large, or the request too slow."""

    seconds = REQUEST_SECONDS

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Made for each connection: the first request is waited for no longer than a request may take."""
        super().__init__(config, server_state, app_state, _loop)
        self._slow: asyncio.TimerHandle | None = None
        self._in_head, self._head = True, 0
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Counted as long as the head goes on."""
        if self._in_head:
            self._head += len(data)
            if self._slow is None:
                self._watch()
        super().data_received(data)
        if self._in_head and self._head > HEAD_LIMIT:
            self._refuse(_TOO_LARGE, "the head of a request is larger than 32 KiB")

    def on_headers_complete(self) -> None:
        """The body has bounds of its own."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Another request may follow."""
        self._unwatch()
        self._in_head, self._head = True, 0
        super().on_message_complete()

    def _watch(self) -> None:
        self._slow = self.loop.call_later(self.seconds, self._refuse, _TOO_SLOW, "a request came too slowly")

    def _unwatch(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _refuse(self, answer: bytes, why: str) -> None:
        self._unwatch()
        if self.transport.is_closing():
            return
        LOG.warning("%s: the connection was closed", why)
        if not self._answering():
            self.transport.write(answer)
        self.transport.close()

    def _answering(self) -> bool:
        """Whether an answer is half sent."""
        cycle: RequestResponseCycle | None = self.cycle  # which is None before the first request
        return cycle is not None and cycle.response_started and not cycle.response_complete
