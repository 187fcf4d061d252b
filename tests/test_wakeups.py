"""Wake-ups as runners and commands have them: heard, asked for, and never relied on."""

import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dstack import wakeups
from dstack.ledger.cache import Cache
from dstack.ledger.gitledger import GitLedger
from dstack.model.errors import Failed, Invalid
from dstack.model.hookpath import hook_path
from dstack.model.settings import parse_settings
from dstack.wakeups import Wakeups, check, token_of
from tests.calls import stored_desk
from webhooks.server import Receiver, Served, What

TOKEN = "pl4nted-token-of-letters"  # noqa: S105 (planted)
REPOSITORY = "4d5e6f"


class Heard:
    """Counts calls, and waits for them."""

    def __init__(self) -> None:
        self.count = 0
        self._came = threading.Condition()

    def __call__(self, *_: object) -> None:
        with self._came:
            self.count += 1
            self._came.notify_all()

    def wait(self, count: int) -> None:
        with self._came:
            assert self._came.wait_for(lambda: self.count >= count, 20), f"called {self.count} times"


def listening(url: str, heard: Callable[[], None], token: str = TOKEN) -> Wakeups:
    return Wakeups(repository=REPOSITORY, token=token, url=lambda: url, woke=heard, jitter=lambda: 0.0)


@pytest.fixture
def poked() -> Heard:
    """What the controller hears."""
    return Heard()


@pytest.fixture
def receiver(poked: Heard) -> Iterator[Receiver]:
    """A real one."""
    served = Served(name="acme/train", tokens=(TOKEN,), repository=REPOSITORY)
    found = Receiver("0", [served], lambda _, what: poked() if what is What.STATE else None)
    yield found
    found.stop()


def test_a_change_is_heard_and_a_poke_reaches_the_controller(receiver: Receiver, poked: Heard) -> None:
    heard = Heard()
    one = listening(f"http://{receiver.address}/", heard)
    one.start()
    heard.wait(1)  # it can't know what has been before
    receiver.changed("acme/train")
    heard.wait(2)
    one.poke()
    poked.wait(1)
    one.stop()
    before = heard.count
    receiver.changed("acme/train")
    receiver.changed("acme/train")
    one.poke()
    assert heard.count == before


def test_a_wrong_token_is_refused_and_named(receiver: Receiver) -> None:
    url = f"http://{receiver.address}"
    assert check(url, REPOSITORY, TOKEN) == ""
    assert "knows no such repository by this token" in check(url, REPOSITORY, "another")
    assert "doesn't answer" in check("http://127.0.0.1:9", REPOSITORY, TOKEN)


class _Handler(BaseHTTPRequestHandler):
    answers: list[tuple[int, bytes]]
    asked: list[tuple[str, str, str]]

    def do_GET(self) -> None:
        self.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 (the library's names)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Who asked may hang up in the middle."""


class Fake:
    """One that answers whatever a test wants, the last answer again and again."""

    def __init__(self) -> None:
        self.handler: type[_Handler] = type("Handler", (_Handler,), {"answers": [(200, b"{}")], "asked": []})
        self.server = _Server(("127.0.0.1", 0), self.handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answering(self, *answers: tuple[int, bytes]) -> str:
        self.handler.answers[:] = answers
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_doctor_says_whether_the_controller_tells_us_of_changes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = stored_desk(tmp_path, capfd)

    def said() -> str:
        return next((line for line in at.dstack("doctor").out.splitlines() if " wake-ups " in line), "")

    assert said() == "", "nobody asked for them"
    repository = GitLedger(Cache(tmp_path / "cache", str(at.remote))).observe().repository
    receiver = Receiver("0", [Served(name="here", tokens=(TOKEN,), repository=repository or "")], lambda *_: None)
    try:
        at.dstack("config", "set", "controller_url", f"http://{receiver.address}")
        assert f"set {wakeups.TOKEN} to its token" in said()
        monkeypatch.setenv(wakeups.TOKEN, "another")
        assert "knows no such repository by this token" in said()
        monkeypatch.setenv(wakeups.TOKEN, TOKEN)
        assert said().startswith("ok ")
    finally:
        receiver.stop()
    assert "doesn't answer" in said()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"<html>", "is no dstack controller"),
        (200, b'{"change": "x"}', "is no dstack controller"),
        (200, b"[" * 4000, "is no dstack controller"),
        (200, b'{"change": 1}' + b" " * 10_000_000, "is no dstack controller"),
        (200, b'{"change": 1}', ""),
        (401, b"", "doesn't take the token"),
        (404, b"", "knows no such repository"),
        (302, b"", "doesn't answer"),
        (500, b"", "doesn't answer"),
    ],
)
def test_any_answer_is_borne(fake: Fake, status: int, body: bytes, said: str) -> None:
    found = check(fake.answering((status, body)), REPOSITORY, TOKEN)
    assert said in found
    assert (not found) is (not said)
    assert fake.handler.asked == [("GET", f"/wake/{hook_path(TOKEN, REPOSITORY)}?since=0", f"Bearer {TOKEN}")]
    assert TOKEN not in found


def test_a_controller_that_is_away_is_asked_again_and_told_of_once(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wakeups, "FIRST_SECONDS", 0.01)
    caplog.set_level(logging.DEBUG)
    heard = Heard()
    one = listening(fake.answering((500, b""), (500, b""), (503, b""), (200, b'{"change": 7}')), heard)
    one.start()
    heard.wait(1)
    one.stop()
    told = [record.message for record in caplog.records if record.name == wakeups.__name__]
    assert len(told) == 2
    assert "doesn't answer" in told[0]
    assert "answers again" in told[1]
    assert TOKEN not in caplog.text


def test_without_a_token_or_an_address_nothing_is_asked(fake: Fake) -> None:
    for one in (
        listening(fake.answering((200, b'{"change": 1}')), Heard(), token=""),
        Wakeups(repository=REPOSITORY, token=TOKEN, url=lambda: None, woke=Heard()),
    ):
        one.start()
        one.poke()
        one.stop()
    assert fake.handler.asked == []


def test_the_token_comes_from_the_environment_or_a_private_file(tmp_path: Path) -> None:
    assert token_of({}) == ""
    assert token_of({"DSTACK_CONTROLLER_TOKEN": " new , old\n"}) == "new"
    file = tmp_path / "token"
    file.write_text("kept\n")
    file.chmod(0o600)
    assert token_of({"DSTACK_CONTROLLER_TOKEN_FILE": str(file)}) == "kept"
    file.chmod(0o640)
    with pytest.raises(Failed, match="chmod 600"):
        token_of({"DSTACK_CONTROLLER_TOKEN_FILE": str(file)})
    with pytest.raises(Failed, match="can't be read"):
        token_of({"DSTACK_CONTROLLER_TOKEN_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize("url", ["ftp://a", "https://", "https://a:b@c", "example.org", "https://a b"])
def test_an_address_that_makes_no_sense_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="controller_url"):
        parse_settings(f"controller_url: {url!r}\n".encode())


def test_an_address_may_have_a_port_and_a_path() -> None:
    assert parse_settings(b"controller_url: http://[::1]:8080/dstack\n").controller_url == "http://[::1]:8080/dstack"
