"""A receiver of webhooks in this process: its application, called without a server, and the line to its controller."""

import asyncio
import hashlib
import hmac
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message

from dstack.model.hookpath import hook_path
from webhooks.app import Parts, application
from webhooks.messages import FromReceiver, Serve, Served, ToReceiver, What, Woke, from_receiver, line

SECRET, TOKEN, NAME = "a secret of letters", "a token of letters", "acme/train"
SERVED = Served(name=NAME, secrets=(SECRET,), tokens=(TOKEN,), repository="4d5e6f")
PATH = hook_path(SECRET, NAME)
HOOKS = f"/hooks/{PATH}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: Mapping[bytes, bytes]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode().strip()


@dataclass(slots=True, kw_only=True)
class Door:
    app: ASGIApp
    parts: Parts
    line: socket.socket

    async def send(
        self, method: str, path: str, headers: Mapping[bytes, bytes] | None = None, parts: Sequence[bytes] = (b"",)
    ) -> Answer:
        """One request, whose body comes in `parts`; after them the sender stays on the line."""
        left = list(parts)
        sent: list[Message] = []

        async def receive() -> dict[str, Any]:
            if not left:
                await asyncio.Event().wait()
            part = left.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(left)}

        async def send(message: Message) -> None:
            sent.append(message)

        path, _, query = path.partition("?")
        await self.app(scope(method, path, query.encode(), headers or {}), receive, send)
        return Answer(
            status=sent[0]["status"], headers=dict(sent[0]["headers"]), body=b"".join(one["body"] for one in sent[1:])
        )

    async def deliver(self, headers: Mapping[bytes, bytes], body: bytes, path: str = HOOKS) -> Answer:
        return await self.send("POST", path, headers, [body])

    def say(self, message: ToReceiver) -> None:
        self.line.sendall(line(message))

    def heard(self) -> list[FromReceiver]:
        """What it has said since it was last asked."""
        said = b""
        try:
            while part := self.line.recv(65536, socket.MSG_DONTWAIT):
                said += part
        except BlockingIOError:
            pass
        return [message for text in said.splitlines() if (message := from_receiver(text))]

    def woken(self) -> list[What]:
        return [message.what for message in self.heard() if isinstance(message, Woke)]


@asynccontextmanager
async def door(*served: Served) -> AsyncIterator[Door]:
    """A receiver for these repositories; otherwise for `SERVED`."""
    ours, theirs = socket.socketpair()
    parts = Parts()
    reader, writer = await asyncio.open_connection(sock=theirs)
    made = Door(app=application(parts), parts=parts, line=ours)
    made.say(Serve(repositories=served or (SERVED,)))
    await parts.link.begin(reader, writer)
    listening = asyncio.create_task(parts.link.run())
    await asyncio.sleep(0)
    made.heard()
    try:
        yield made
    finally:
        ours.close()
        await listening
        writer.close()


def scope(method: str, path: str, query: bytes, headers: Mapping[bytes, bytes]) -> dict[str, Any]:
    """As a server makes it of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query,
        "headers": list(headers.items()),
        "client": ("192.0.2.1", 1234),
        "server": ("127.0.0.1", 80),
    }


def digest(body: bytes, secret: str = SECRET) -> bytes:
    return hmac.digest(secret.encode(), body, hashlib.sha256).hex().encode()


def github(event: str, body: bytes, secret: str = SECRET, delivery: str = "") -> dict[bytes, bytes]:
    headers = {b"x-github-event": event.encode(), b"x-hub-signature-256": b"sha256=" + digest(body, secret)}
    return {**headers, b"x-github-delivery": delivery.encode()} if delivery else headers


def gitlab(event: str, secret: str = SECRET) -> dict[bytes, bytes]:
    return {b"x-gitlab-event": event.encode(), b"x-gitlab-token": secret.encode()}


def gitea(event: str, body: bytes, secret: str = SECRET) -> dict[bytes, bytes]:
    return {
        b"x-gitea-event": event.encode(),
        b"x-github-event": event.encode(),
        b"x-gitea-signature": digest(body, secret),
        b"x-hub-signature-256": b"sha256=" + digest(body, secret),
    }


def bitbucket(event: str, body: bytes, secret: str = SECRET) -> dict[bytes, bytes]:
    return {b"x-event-key": event.encode(), b"x-hub-signature": b"sha256=" + digest(body, secret)}
