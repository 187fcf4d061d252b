"""Reads the body of a request, within bounds for it, and for all that are being read at once."""

import re
from collections.abc import Mapping

from starlette.types import Receive

MIB = 1024 * 1024
# GitHub sends at most 25 MB.
LIMIT = 25 * MIB
AT_ONCE = 512
BYTES_AT_ONCE = 8 * LIMIT

_LENGTH = re.compile(rb"[0-9]{1,19}")


class Unread(Exception):
    """The body was not read."""


class TooLarge(Unread):
    """More than one body may have."""


class Full(Unread):
    """More than is read at once."""


class Gone(Unread):
    """The sender went away before the end, or was too slow (see `webhooks.guard`)."""


class Bodies:
    """All that are being read."""

    def __init__(self, *, limit: int = LIMIT, at_once: int = AT_ONCE, bytes_at_once: int = BYTES_AT_ONCE) -> None:
        """Limits in bytes; `at_once`: requests."""
        self._limit, self._at_once, self._bytes_at_once = limit, at_once, bytes_at_once
        self.requests = 0
        self.bytes = 0

    async def read(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Raises TooLarge, Full, Gone."""
        length = headers.get(b"content-length", b"0")
        # One that is no number is no length: it is counted while it is read.
        if _LENGTH.fullmatch(length) and int(length) > self._limit:
            raise TooLarge
        if self.requests >= self._at_once:
            raise Full
        held = 0
        self.requests += 1
        try:
            parts: list[bytes] = []
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Gone
                if part := message.get("body", b""):
                    parts.append(part)
                    held += len(part)
                    self.bytes += len(part)
                if held > self._limit:
                    raise TooLarge
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
                if self.bytes > self._bytes_at_once:
                    raise Full
        finally:
            self.requests -= 1
            self.bytes -= held
