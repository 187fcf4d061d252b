"""One repository's controller and the network: who is listened to, with which secrets, and what its news does."""

import http.client
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli.serving import serving
from cli.session import Seen, Session, open_session, set_up
from controller.fleet import Progress
from dstack.model.errors import Failed, Invalid
from dstack.model.hookpath import hook_path
from tests.calls import desk
from tests.receivers import github

SECRET, TOKEN = "s3cret", "t0ken"
BODY = b'{"ref":"refs/heads/main"}'


class Told:
    """A controller that only notes what wakes it."""

    def __init__(self) -> None:
        self.woken: list[str] = []
        self.news = threading.Semaphore(0)

    def run(self) -> None: ...

    def stop(self) -> None: ...

    def retry(self) -> None: ...

    def wake(self) -> None:
        self._note("state")

    def wake_code(self) -> None:
        self._note("code")

    def progress(self) -> Progress:
        return Progress(polled_at=datetime.now(UTC), turns=3, runs=2)

    def _note(self, what: str) -> None:
        self.woken.append(what)
        self.news.release()


@pytest.fixture
def opened(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Session, Seen]:
    for name in ("DSTACK_WEBHOOK_SECRET", "DSTACK_CONTROLLER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    session = open_session(desk(tmp_path, capfd).folder)
    return session, set_up(session)


def ask(address: str, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def test_webhooks_and_pokes_wake_the_controller_and_its_pushes_tell_who_waits(
    opened: tuple[Session, Seen], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    session, seen = opened
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\nold\n")
    file.chmod(0o600)
    monkeypatch.setenv("DSTACK_WEBHOOK_SECRET_FILE", str(file))
    monkeypatch.setenv("DSTACK_CONTROLLER_TOKEN", TOKEN)
    told = Told()
    capfd.readouterr()
    with serving("0", session, seen, told) as changed:
        shown = capfd.readouterr().err.strip()
        address, _, path = shown.removeprefix("Webhooks: http://").partition("/")
        assert path == f"hooks/{hook_path(SECRET, 'remote')}"
        signed = {name.decode(): value.decode() for name, value in github("push", BODY, "old").items()}
        assert ask(address, "POST", f"/{path}", signed, BODY) == (202, "push: refs/heads/main\n")
        assert told.news.acquire(timeout=20)

        by_id = hook_path(TOKEN, seen.known_repository())
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert ask(address, "POST", f"/poke/{by_id}", bearer)[0] == 202
        assert told.news.acquire(timeout=20)
        assert told.woken == ["code", "state"]

        number = ask(address, "GET", f"/wake/{by_id}", bearer)[1].strip('{"change:}')
        changed()
        assert ask(address, "GET", f"/wake/{by_id}?since={number}", bearer)[0] == 200
        page = ask(address, "GET", "/metrics", {})[1]
        assert 'dstack_controller_turns_total{repository="remote"} 3.0' in page
        assert SECRET not in page


def test_without_secrets_it_says_how_to_set_them(
    opened: tuple[Session, Seen], capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    with serving("0", *opened, Told()):
        said = capfd.readouterr().err
        assert "no secret is set. Give one with DSTACK_WEBHOOK_SECRET" in said
        assert "DSTACK_CONTROLLER_TOKEN or DSTACK_CONTROLLER_TOKEN_FILE" in said


def test_a_file_that_others_can_read_and_an_address_that_is_none_are_refused(
    opened: tuple[Session, Seen], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Invalid, match="no address to listen at"), serving("here", *opened, Told()):
        pass
    file = tmp_path / "secret"
    file.write_text(SECRET)
    file.chmod(0o644)
    monkeypatch.setenv("DSTACK_WEBHOOK_SECRET_FILE", str(file))
    with pytest.raises(Failed, match="others can read the secrets"), serving("0", *opened, Told()):
        pass


def test_without_an_address_nobody_listens(opened: tuple[Session, Seen]) -> None:
    with serving(None, *opened, Told()) as changed:
        changed()
