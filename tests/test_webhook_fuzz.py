"""A hundred thousand requests, each a good one with something wrong: never an error of ours, and only what is signed
well is heard."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from starlette.types import Message, Scope

from tests.receivers import HOOKS, PATH, bitbucket, door, github, gitlab

FUZZED = 100_000
PATHS = (HOOKS, HOOKS, HOOKS, f"/wake/{PATH}", f"/poke/{PATH}", "/healthz", f"/hooks/{'0' * 32}", "/hooks/\x00")
METHODS = ("GET", "PUT", "HEAD", "\x00", "POST")
JUNK = (b"", b"\xff", b"0" * 200, b"[" * 3000, b'{"a":' * 3000, b"null", b"-1", b"sha256=", b"v1,", b"\r\n", b"{}")
ADDED = (b"content-length", b"authorization", b"webhook-signature", b"webhook-timestamp", b"content-type")
EVENTS = ("push", "create", "pull_request")
TEMPLATE = {"type": "http", "http_version": "1.1", "scheme": "http", "root_path": "", "client": None, "server": None}

PUSH = b'{"ref":"refs/heads/main"}'
LAB = b'{"object_kind":"push","ref":"refs/heads/main"}'
PULL = b'{"action":"opened","number":3}'
MOVED = b'{"push":{"changes":[{"new":{"type":"branch","name":"main"}}]}}'
GOOD = (
    (github("push", PUSH), PUSH),
    (gitlab("Push Hook"), LAB),
    (github("pull_request", PULL), PULL),
    (bitbucket("repo:push", MOVED), MOVED),
)


@dataclass(slots=True)
class Request:
    headers: dict[bytes, bytes]
    body: bytes
    method: str = "POST"
    path: str = HOOKS
    whole: bool = True

    def scope(self) -> Scope:
        changed = {"method": self.method, "path": self.path, "query_string": b"", "headers": list(self.headers.items())}
        return {**TEMPLATE, **changed}

    def messages(self) -> list[Message]:
        body: Message = {"type": "http.request", "body": self.body, "more_body": not self.whole}
        return [body] if self.whole else [body, {"type": "http.disconnect"}]


def change_method(request: Request, chance: random.Random) -> None:
    request.method = chance.choice(METHODS)


def change_path(request: Request, chance: random.Random) -> None:
    request.path = chance.choice(PATHS)


def change_header(request: Request, chance: random.Random) -> None:
    request.headers[chance.choice((*request.headers, *ADDED))] = chance.choice(JUNK)


def drop_header(request: Request, chance: random.Random) -> None:
    if request.headers:
        del request.headers[chance.choice(list(request.headers))]


def change_byte(request: Request, chance: random.Random) -> None:
    at = chance.randrange(len(request.body) + 1)
    request.body = request.body[:at] + bytes([chance.randrange(256)]) + request.body[at + 1 :]


def change_body(request: Request, chance: random.Random) -> None:
    request.body = chance.choice(JUNK)


def cut_off(request: Request, _chance: random.Random) -> None:
    request.whole = False


def sign_junk(request: Request, chance: random.Random) -> None:
    request.body = chance.choice(JUNK)
    request.headers = github(chance.choice(EVENTS), request.body)


def sign_garbled(request: Request, chance: random.Random) -> None:
    change_byte(request, chance)
    request.headers = github(chance.choice(EVENTS), request.body)


CHANGES: tuple[Callable[[Request, random.Random], None], ...] = (
    *(change_method, change_path, change_header, drop_header, change_byte),
    *(change_body, cut_off, sign_junk, sign_garbled),
)


@dataclass(slots=True)
class Heard:
    counts: Counter[int] = field(default_factory=Counter)
    messages: list[Message] = field(default_factory=list)

    async def receive(self) -> Message:
        return self.messages.pop(0) if self.messages else {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.counts[message["status"]] += 1


def test_a_hundred_thousand_requests_do_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    heard, chance = Heard(), random.Random(19)

    async def work() -> None:
        async with door() as receiver:
            for _ in range(FUZZED):
                headers, body = chance.choice(GOOD)
                request = Request(dict(headers), body)
                for change in chance.choices(CHANGES, k=chance.randrange(4)):
                    change(request, chance)
                heard.messages = request.messages()
                await receiver.app(request.scope(), heard.receive, heard.send)
            assert receiver.parts.bodies.requests == receiver.parts.bodies.bytes == 0

    asyncio.run(work())
    assert heard.counts.total() == FUZZED
    assert set(heard.counts) <= {200, 202, 400, 401, 404, 405, 413}
    assert all(heard.counts[status] > 500 for status in (200, 202, 400, 401, 404, 405)), heard.counts
