"""The receiver in its process: what it is given and isn't, how it dies, and what comes in too slowly or too large."""

import asyncio
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest
import uvicorn

from dstack.model.errors import Invalid
from tests.receivers import HOOKS, NAME, PATH, SECRET, SERVED, TOKEN, door, github
from webhooks.guard import GuardedProtocol
from webhooks.server import Receiver, Served, Standing, What

BODY = b'{"ref":"refs/heads/main"}'
ROOT = Path(__file__).parent.parent


class Held:
    """A receiver, and the wake-ups that came from it."""

    def __init__(self, deliveries: Path) -> None:
        self.woken: SimpleQueue[tuple[str, What]] = SimpleQueue()
        standing = Standing(name=NAME, polled=0.0)
        self.receiver = Receiver(
            "0", [SERVED], lambda *news: self.woken.put(news), standing=lambda: [standing], deliveries=deliveries
        )

    def request(
        self, method: str, path: str, headers: Mapping[bytes, bytes] | None = None, body: bytes = b""
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.receiver.address, timeout=20)
        given = {name.decode(): value.decode() for name, value in (headers or {}).items()}
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    def heard(self) -> list[tuple[str, What]]:
        """What came within a while, and at least something."""
        found = [self.woken.get(timeout=20)]
        try:
            while True:
                found.append(self.woken.get(timeout=0.3))
        except Empty:
            return found


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    monkeypatch.setenv("DSTACK_WEBHOOK_SECRET", SECRET)
    made = Held(tmp_path / "deliveries.json")
    try:
        yield made
    finally:
        made.receiver.stop()


def test_it_hears_is_killed_is_started_again_and_loses_nothing(held: Held) -> None:
    headers = github("push", BODY, delivery="1")
    assert held.request("POST", HOOKS, headers, BODY) == (202, b"push: refs/heads/main\n")
    assert held.heard() == [(NAME, What.CODE)]
    assert held.request("GET", "/readyz")[0] == 200
    page = held.request("GET", "/metrics")[1].decode()
    assert f'dstack_webhook_wakes_total{{repository="{NAME}",what="code"}} 1.0' in page
    assert "_created" not in page

    pid = held.receiver.pid
    assert pid is not None
    given = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
    assert SECRET.encode() not in given
    assert TOKEN.encode() not in given

    bearer = {b"authorization": f"Bearer {TOKEN}".encode()}
    _, before = held.request("GET", f"/wake/{PATH}", bearer)
    os.kill(pid, signal.SIGKILL)
    # The socket is the controller's: who comes now waits a moment, and isn't turned away.
    assert held.request("POST", HOOKS, github("push", BODY, delivery="2"), BODY)[0] == 202
    assert held.receiver.pid != pid
    assert set(held.heard()) == {(NAME, What.CODE), (NAME, What.STATE)}
    assert held.request("GET", f"/wake/{PATH}", bearer) == (200, before)
    held.receiver.changed(NAME)
    number = before.decode().strip('{}"changes: ')
    assert held.request("GET", f"/wake/{PATH}?since={number}", bearer)[1] != before

    held.receiver.serve([Served(name=NAME, secrets=("another",), repository="4d5e6f")])
    until(lambda: held.request("POST", HOOKS, headers, BODY)[0] == 404)

    pid = held.receiver.pid
    held.receiver.stop()
    assert pid is not None
    assert gone(pid)
    with pytest.raises(OSError, match="refused"):
        held.request("GET", "/healthz")


def test_a_secret_that_can_be_guessed_is_named(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver("0", [Served(name="weak", secrets=("hunter2",)), SERVED], print)
    receiver.stop()
    assert "a secret or token of weak is shorter" in caplog.text
    assert "hunter2" not in caplog.text
    assert NAME not in caplog.text
    with pytest.raises(Invalid, match="is no text"):
        Receiver("0", [Served(name="bytes", secrets=("\udcff" * 20,))], print)


def test_it_ends_with_a_controller_that_is_killed() -> None:
    script = (
        "import sys, time; from webhooks.server import Receiver; r = Receiver('0', [], print)\n"
        "print(r.address, flush=True)\n"
        "while not r.pid: time.sleep(0.01)\n"
        "print(r.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as controller:
        assert controller.stdout is not None
        address, pid = controller.stdout.readline().strip(), int(controller.stdout.readline())
        connection = http.client.HTTPConnection(address, timeout=20)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
        controller.kill()
    until(lambda: gone(pid))


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


class Hasty(GuardedProtocol):
    seconds = 0.1


HEAD = b"POST %s HTTP/1.1\r\nhost: x\r\n" % HOOKS.encode()


SLOW, LARGE = "a request came too slowly", "the head of a request is larger than 32 KiB"


@pytest.mark.parametrize(
    ("pieces", "answer", "reason"),
    [
        pytest.param([], b"408", SLOW, id="who says nothing"),
        pytest.param([b"\r\n"] * 40, b"408", SLOW, id="blank lines"),
        pytest.param([HEAD, *([b"a: b\r\n"] * 40)], b"408", SLOW, id="headers one by one"),
        pytest.param([HEAD + b"content-length: 99\r\n\r\n", *([b"x"] * 40)], b"408", SLOW, id="a body drop by drop"),
        pytest.param(
            [HEAD + b"transfer-encoding: chunked\r\n\r\n", *([b"1\r\nx\r\n"] * 40)], b"408", SLOW, id="chunks"
        ),
        pytest.param([HEAD + b"a: " + b"b" * 200_000], b"431", LARGE, id="a header without end"),
        pytest.param([HEAD + b"a: b\r\n" * 50_000], b"431", LARGE, id="headers without end"),
        pytest.param([b"GET /" + b"x" * 200_000], b"431", LARGE, id="a path without end"),
        pytest.param([b"\x16\x03\x01 is not HTTP\r\n\r\n"], b"400", "Invalid HTTP request", id="TLS, perhaps"),
        pytest.param([HEAD + b"content-length: 99999999\r\n\r\n"], b"413", "more than 25 MiB", id="more than is taken"),
    ],
)
def test_who_is_too_slow_or_too_large_is_hung_up_on(
    pieces: list[bytes], answer: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> bytes:
        async with door() as receiver:
            config = uvicorn.Config(receiver.app, http=Hasty, ws="none", lifespan="off", log_config=None)
            config.load()
            server = uvicorn.Server(config)
            listening = socket.create_server(("127.0.0.1", 0))
            serving = asyncio.create_task(server._serve([listening]))
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            hearing = asyncio.create_task(heard(reader))
            for piece in pieces:
                if not hearing.done():
                    writer.write(piece)
                    await asyncio.sleep(0.01)
            said = await asyncio.wait_for(hearing, 20)
            writer.close()
            server.should_exit = True
            await serving
            assert receiver.woken() == []
            return said

    said = asyncio.run(work())
    assert said.startswith(b"HTTP/1.1 " + answer) or said == RESET
    assert reason in caplog.text


RESET = b"reset: more was on its way when the connection was closed"


async def heard(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return RESET
