"""`dstack controller` for several repositories, without a clone, over real ones: begun, told of changes, ended."""

import json
import logging
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from cli.fleet import MOST_WATCHED, NoDoor, Service, repositories
from cli.fleet_config import File, Options
from cli.fleet_door import HttpDoor
from controller.configuration import Entry
from controller.fleet import NOT_YET, Fleet, Standing
from dstack.model import refs
from dstack.model.hookpath import hook_path
from tests.calls import desk, stored_desk
from tests.daemons import wait_until
from tests.git_servers import HttpServer, free_port, running
from tests.installed import ROOT
from tests.repositories import bare, sh


class Controllers:
    """The service of a file, in this process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fleet = Fleet()
        self.service = Service(File(path=path), self.fleet, HttpDoor(self.fleet))

    def standing(self, name: str) -> Standing | None:
        return next((one for one in self.fleet.summary() if one.name == name), None)

    def failure(self, name: str) -> str | None:
        found = self.standing(name)
        return found.failure if found else "it is not served"

    def rewrite(self, text: str) -> None:
        scratch = self.path.with_name("new")
        scratch.write_text(text)
        scratch.replace(self.path)
        self.service.reload()

    @contextmanager
    def running(self) -> Generator[None]:
        self.service.begin()
        thread = threading.Thread(target=self.service.run)
        thread.start()
        try:
            yield
        finally:
            self.service.stop()
            thread.join()


def controllers(folder: Path, text: str) -> Controllers:
    path = folder / "controller.yaml"
    path.write_text(text)
    path.chmod(0o600)
    return Controllers(path)


def test_each_is_served_when_it_can_be_and_the_list_may_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    one = stored_desk(tmp_path / "one", capsys)
    other = desk(tmp_path / "other", capsys)
    first, second = "{url: one/remote.git, name: one}", "{url: other/remote.git, name: other}"
    away = "{url: 'http://ada:pl4nted@127.0.0.1:1/acme/x.git'}"
    port = free_port()
    many = controllers(tmp_path, f"http: {port}\nrepositories: [{first}, {second}, {away}]")
    with many.running():
        wait_until(lambda: many.failure("one") is None)
        wait_until(lambda: many.failure("other") == NOT_YET)
        wait_until(lambda: "can't be reached" in (many.failure("acme/x") or ""))
        assert one.dstack("run", "hello", "-d", "-y").code == 0
        wait_until(lambda: any(ref.endswith("/controller") for ref in one.refs()))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
            ready = json.load(answer)
        assert set(ready["polled"]) == {"one", "other", "acme/x"}
        assert ready["polled"]["one"] is not None
        assert other.dstack("init", "--store", (tmp_path / "store").as_uri()).code == 0
        many.service.reload()
        wait_until(lambda: many.failure("other") is None)
        many.rewrite("repositories: [nonsense: x]")
        wait_until(lambda: any("there is no key 'nonsense'" in line for line in caplog.messages))
        assert [one.name for one in many.fleet.summary()] == ["acme/x", "one", "other"]
        many.rewrite(f"repositories: [{second}]")
        wait_until(lambda: [one.name for one in many.fleet.summary()] == ["other"])
        assert other.dstack("run", "hello", "-d", "-y").code == 0
        wait_until(lambda: any(ref.endswith("/controller") for ref in other.refs()))
    assert "listening at" in caplog.text
    assert "pl4nted" not in caplog.text
    assert refs.ID in other.refs()
    places = list((Path.home() / ".local/state/dstack/controller").glob("*/controller/objects"))
    assert len(places) == 3


def test_a_password_comes_from_gits_own_helper_or_a_file_of_the_owner_and_is_told_nowhere(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    desks = [stored_desk(tmp_path / name, capsys) for name in ("one", "two")]
    server = HttpServer(tmp_path)
    login = server.url("one/remote.git").removesuffix("one/remote.git")
    (tmp_path / "logins").write_text(login)
    (tmp_path / "gitconfig").write_text(f"[credential]\nhelper = store --file={tmp_path}/logins\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    urls = [f"{login}one/remote.git", server.plain_url("two/remote.git")]
    with running(server):
        many = controllers(tmp_path, f"repositories:\n- '{urls[0]}'\n- '{urls[1]}'")
        with many.running():
            wait_until(lambda: many.failure("one/remote") is None and many.failure("two/remote") is None)
            for at in desks:
                assert at.dstack("run", "hello", "-d", "-y").code == 0
                wait_until(lambda: any(ref.endswith("/controller") for ref in at.refs()))  # noqa: B023 (at once)
    told = capsys.readouterr()
    assert "pl4nted" not in caplog.text + told.out + told.err
    for path in (Path.home() / ".local/state").rglob("*"):
        assert not path.is_file() or b"pl4nted" not in path.read_bytes(), path


def test_the_check_says_of_each_whether_it_can_be_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = stored_desk(tmp_path / "one", capsys)
    bare(tmp_path / "new.git")
    (tmp_path / "controller.yaml").write_text("repositories: [one/remote.git, new.git, none.git]")
    answer = at.dstack("controller", "--config", str(tmp_path / "controller.yaml"), "--check")
    assert answer.code == 1
    results = [line.split()[:2] for line in answer.out.splitlines()]
    assert results == [["ok", "remote"]] * 3 + [["warning", "new"], ["bad", "none"]]
    assert sh(at.remote, "for-each-ref", "refs/dstack/probe/") == ""
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    (tmp_path / "controller.yaml").write_text(
        "http: 8080\nrepositories: [{url: one/remote.git, webhook-secret-file: secret}]"
    )
    answer = at.dstack("controller", "--config", str(tmp_path / "controller.yaml"), "--check")
    assert answer.code == 0
    assert answer.out.endswith(f" webhooks arrive at /hooks/{hook_path('s3cret', 'remote')}\n")
    assert at.dstack("controller", "--repo", str(at.remote), "--check").code == 0
    answer = at.dstack("controller", "--repo", str(at.remote), "--http", "nowhere", "--check")
    assert answer.code == 1
    assert "nowhere" in answer.err


def test_signals_reach_the_process_and_its_log_says_which_repository_is_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored_desk(tmp_path / "one", capsys)
    config = tmp_path / "controller.yaml"
    config.write_text("repositories: [{url: one/remote.git, name: acme/one}, {url: none.git, name: none}]")
    log = tmp_path / "log"
    with log.open("wb") as file:
        words = [sys.executable, "-m", "dstack", "controller", "--config", str(config)]
        process = subprocess.Popen(words, cwd=ROOT, stderr=file)
    try:
        wait_until(lambda: "acme/one: served" in log.read_text() and "none: the state remote" in log.read_text())
        config.write_text("repositories: [{url: one/remote.git, name: acme/one}]")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "none: no longer served" in log.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("address", "count", "poll", "watched"),
    [
        ("https://host/acme/x{}", 20, 2.0, True),
        ("https://host/acme/x{}", 60, 6.0, True),
        ("https://github.com/acme/x{}", 40, 5.0, True),
        ("/srv/x{}.git", MOST_WATCHED, 2.0, True),
        ("/srv/x{}.git", MOST_WATCHED + 1, 2.0, False),
    ],
)
def test_the_more_there_are_the_more_rarely_each_is_looked_at(
    address: str, count: int, poll: float, *, watched: bool
) -> None:
    places = Options(urls=tuple(map(address.format, range(count))), base=Path("/")).read().places
    entry, url, _, watch = cast("tuple[Entry, str, str, bool]", repositories(places, NoDoor())[-1].terms)
    assert (entry.poll, watch) == (poll, watched)
    assert url == address.format(count - 1)
    (slow,) = Options(urls=(address.format(0),), base=Path("/"), poll=60.0).read().places
    assert cast("tuple[Entry]", repositories([slow, *places[1:]], NoDoor())[0].terms)[0].poll == 60.0


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--check"], 2, "--check looks at --repo or --config; for the repository around there is `dstack doctor`"),
        (["--repo", "x", "--config", "y"], 2, "--repo and --config don't go together: list the repository in the file"),
        (["--config", "none.yaml"], 1, "none.yaml can't be read: No such file or directory"),
        (["--repo", "https://ada:pl4nted@h/acme/x"], 1, "everybody on this machine could read the password"),
    ],
)
def test_what_cannot_be_meant_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, told: str
) -> None:
    answer = desk(tmp_path, capsys).dstack("controller", *words)
    assert answer.code == code
    assert told in answer.err
    assert "pl4nted" not in answer.err
