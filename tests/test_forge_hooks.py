"""`dstack init --webhook`, `dstack doctor`, and a controller, with a forge that keeps state."""

import itertools
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace as with_fields

from cli.forge import reporting
from cli.session import open_session
from controller.report_turn import ReportTurn
from controller.reporting import Reporting
from dstack.forge.forge import Hook
from dstack.forge.hooks import check_public, keep_hook, patiently
from dstack.forge.opening import forge_at
from dstack.ledger.credentials import ask_password
from dstack.ledger.git import Context
from dstack.ledger.memory import MemoryLedger
from dstack.model import refs
from dstack.model.errors import Failed, Invalid, Unavailable
from dstack.model.forge import ForgeKind, ForgeSettings
from dstack.model.hookpath import hook_path
from dstack.model.runspec import Trigger, TriggerEvent
from dstack.model.settings import Settings
from dstack.store.memory import MemoryStore
from tests.calls import Desk, desk
from tests.forge_server import PROJECT, TOKEN, FakeForge, Fault, plain_http, serving
from tests.model_values import moment, world
from tests.reported_runs import job_of, view
from tests.repositories import sh
from tests.test_controller import controller, record, remote

PUBLIC = "https://dstack.example.org"
OLD, NEW = "0ld-s3cret", "n3w-s3cret"
COMMIT = "c" * 40


@pytest.fixture(params=list(ForgeKind))
def fake(request: pytest.FixtureRequest) -> Iterator[FakeForge]:
    with serving(request.param) as forge:
        yield forge


@pytest.fixture
def hub() -> Iterator[FakeForge]:
    with serving() as forge:
        yield forge


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with plain_http(0.5) as client:
        yield client


@pytest.fixture
def clone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[FakeForge], Desk]:
    """A clone of a project on a forge, whose state is in a repository apart."""

    def make(forge: FakeForge) -> Desk:
        at = desk(tmp_path, capfd)
        sh(at.folder, "config", "dstack.remote", str(at.remote))
        sh(at.folder, "remote", "set-url", "origin", f"{forge.address}/{PROJECT}.git")
        assert at.dstack("init").code == 0
        assert at.dstack("config", "set", "forge", f"kind: {forge.kind}").code == 0
        monkeypatch.setenv("DSTACK_FORGE_API", forge.api)
        monkeypatch.setenv("DSTACK_FORGE_TOKEN", TOKEN)
        return at

    return make


def secret_of(hook: dict[str, object]) -> object:
    config = hook.get("config")
    return config["secret"] if isinstance(config, dict) else hook["token"]


def url_of(hook: dict[str, object]) -> object:
    config = hook.get("config")
    return config["url"] if isinstance(config, dict) else hook["url"]


def test_a_hook_is_made_once_with_a_secret_that_is_told_once(
    fake: FakeForge, clone: Callable[[FakeForge], Desk]
) -> None:
    at = clone(fake)
    first = at.dstack("init", "--webhook", PUBLIC)
    assert first.code == 0, first.err
    (hook,) = fake.hooks.values()
    secret = str(secret_of(hook))
    assert f"DSTACK_WEBHOOK_SECRET={secret}" in first.out
    assert len(secret) == 64
    repository = open_session(at.folder).poll().known_repository()
    assert url_of(hook) == f"{PUBLIC}/hooks/{hook_path(secret, repository)}"
    assert TOKEN not in first.out + first.err


def test_asked_for_again_the_hook_is_changed_also_to_another_secret(
    hub: FakeForge, clone: Callable[[FakeForge], Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = clone(hub)
    monkeypatch.setenv("DSTACK_WEBHOOK_SECRET", OLD)
    for _ in range(2):
        assert OLD not in at.dstack("init", "--webhook", f"{PUBLIC}/").out
    before = [url_of(hook) for hook in hub.hooks.values()]
    monkeypatch.setenv("DSTACK_WEBHOOK_SECRET", f"{NEW},{OLD}")
    monkeypatch.setenv("DSTACK_CONTROLLER_URL", PUBLIC)
    assert "brought up to date" in at.dstack("init", "--webhook").out
    (hook,) = hub.hooks.values()
    assert [url_of(hook)] != before
    assert secret_of(hook) == NEW


def test_reporting_is_turned_on_where_nothing_is_set(hub: FakeForge, clone: Callable[[FakeForge], Desk]) -> None:
    at = clone(hub)
    at.dstack("init", "--webhook", PUBLIC)
    assert "kind: github" in at.dstack("config", "get", "forge").out
    # Without the kind only a known host will do.
    at.dstack("config", "set", "forge", "--unset")
    refused = at.dstack("init", "--webhook", PUBLIC)
    assert (refused.code, "kind: gitlab" in refused.err) == (1, True)


def test_what_keeps_the_hook_from_being_made_is_said(
    hub: FakeForge, clone: Callable[[FakeForge], Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = clone(hub)
    for url, words in (("ftp://x", "like https://"), ("https://u:p@x", "like https://"), ("", "DSTACK_CONTROLLER_URL")):
        answer = at.dstack("init", "--webhook", url)
        assert (answer.code, words in answer.err, "u:p" in answer.err) == (1, True, False)
    monkeypatch.setenv("DSTACK_FORGE_TOKEN", "stolen-t0ken")
    answer = at.dstack("init", "--webhook", PUBLIC)
    assert (answer.code, "refuses the token" in answer.err, "stolen" in answer.err) == (1, True, False)
    monkeypatch.delenv("DSTACK_FORGE_TOKEN")
    answer = at.dstack("init", "--webhook", PUBLIC)
    assert (answer.code, "GH_ENTERPRISE_TOKEN" in answer.err) == (1, True)
    assert hub.hooks == {}


def test_doctor_says_whether_the_token_works(
    hub: FakeForge, clone: Callable[[FakeForge], Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = clone(hub)

    def found() -> tuple[str, str]:
        (one,) = (one for one in json.loads(at.dstack("doctor", "--json").out) if one["name"] == "forge")
        return one["result"], one["text"]

    assert found() == ("ok", "127.0.0.1/acme/models can be read with the token, and written to")
    monkeypatch.setenv("DSTACK_FORGE_TOKEN", "stolen-t0ken")
    assert found()[0] == "warning"
    assert "runs can't be reported" in found()[1]


def test_two_at_once_and_a_try_whose_answer_was_lost_leave_one_hook(hub: FakeForge, http: httpx.Client) -> None:
    forge = forge_at(hub.place, TOKEN, http)
    hook = Hook(url=f"{PUBLIC}/hooks/{'1' * 32}", secret=NEW)
    # GitHub's words where the hook is there already.
    hub.faults, hub.failing = (
        [Fault(status=422, body=b'{"message": "Hook already exists on this repository"}')],
        "^POST",
    )
    with pytest.raises(Failed, match="already exists"):
        keep_hook(forge, hook)
    forge.add_hook(hook)
    assert not keep_hook(forge, hook).created
    forge.add_hook(Hook(url=f"{PUBLIC}/hooks/{'2' * 32}", secret=NEW))
    forge.add_hook(Hook(url=f"{PUBLIC}/other", secret=NEW))
    assert keep_hook(forge, hook).others == (f"{PUBLIC}/hooks/{'2' * 32}",)
    assert len(hub.hooks) == 3


def test_a_forge_that_is_away_for_a_moment_is_waited_for_and_no_longer() -> None:
    slept: list[float] = []
    failures = [Unavailable("away"), Unavailable("limit", retry_after=5), None]

    def call() -> str:
        if error := failures.pop(0):
            raise error
        return "done"

    assert patiently(call, sleep=slept.append, jitter=lambda: 0.5) == "done"
    assert slept == [1.0, 5.0]
    failures = [Unavailable("limit", retry_after=600)]
    with pytest.raises(Unavailable):
        patiently(call, sleep=slept.append, jitter=lambda: 0.5)
    assert len(slept) == 2


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://x.org/", "https://x.org"),
        ("https://x.org/dstack/", "https://x.org/dstack"),
        (f"https://x.org/hooks/{'0' * 32}", "https://x.org"),
        ("http://10.0.0.1:8080", "http://10.0.0.1:8080"),
    ],
)
def test_the_address_of_the_controller_is_read(given: str, kept: str) -> None:
    assert check_public(given) == kept


@pytest.mark.parametrize(
    "given", ["x.org", "https://", "https://x.org/?a", "https://x.org/#a", "https://x org", "//[x"]
)
def test_an_address_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(Invalid, match="--webhook"):
        check_public(given)


def test_gits_credential_helper_is_asked_by_pipe_and_nobody_is_prompted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sh(tmp_path, "init", "--quiet")
    context = Context(folder=tmp_path)
    asked = tmp_path / "asked"
    askpass = tmp_path / "askpass"
    askpass.write_text(f"#!/bin/sh\ntouch {asked}\necho prompted\n")
    askpass.chmod(0o755)
    monkeypatch.setenv("GIT_ASKPASS", str(askpass))
    monkeypatch.setenv("SSH_ASKPASS", str(askpass))
    sh(tmp_path, "config", "core.askPass", str(askpass))
    assert ask_password(context, "git.example.org") is None
    assert not asked.exists()
    shim = tmp_path / "bin/git"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/arguments\nexec {shutil.which("git")} "$@"\n')
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}:{os.environ['PATH']}")
    (tmp_path / "kept").write_text(f"username=x\npassword={TOKEN}\n")
    helper = f'!f() {{ cat > {tmp_path}/stdin; test "$1" = get && cat {tmp_path}/kept; }}; f'
    sh(tmp_path, "config", "credential.helper", helper)
    assert ask_password(context, "git.example.org") == TOKEN
    assert "host=git.example.org" in (tmp_path / "stdin").read_text()
    assert "credential fill" in (tmp_path / "arguments").read_text()
    assert TOKEN not in (tmp_path / "arguments").read_text()
    assert ask_password(context, "git.example.org\nhost=evil") is None


def test_a_daemon_finds_forge_and_token_by_itself_and_lets_go_of_them(
    hub: FakeForge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSTACK_FORGE_API", hub.api)
    monkeypatch.setenv("GH_TOKEN", TOKEN)
    sh(tmp_path, "init", "--quiet")
    reporter = reporting(f"git@github.com:{PROJECT}.git", Context(folder=tmp_path), lambda _: MemoryStore())
    reporter.offer(world(view((job_of(), None))), Settings(forge=ForgeSettings()))
    for _ in range(1000):
        if hub.statuses:
            break
        time.sleep(0.01)
    reporter.stop()
    for thread in threading.enumerate():
        if thread.name == "reports":
            thread.join(10)
    assert hub.states(COMMIT) == [("dstack/train", "pending")]


def test_a_controller_reports_the_runs_that_triggers_made(
    hub: FakeForge, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    made = record("fast-rabbit-1", workflows=b"workflows: [{name: other, commands: x}]")
    trigger = Trigger(event=TriggerEvent.PULL_REQUEST, ref="refs/pull/7/head", commit=COMMIT, key="k", pull=7)
    spec = with_fields(made.spec, trigger=trigger)
    state = remote(record("slow-fox-2", root="b" * 40))
    state.add_run(replace(made, spec=spec))
    state.refs[refs.CONFIG] = (state.new_id(), b"forge: {}\n")
    one = controller(MemoryLedger(state), "otter")
    turn = ReportTurn(
        open_forge=lambda _: forge_at(hub.place, TOKEN, http), open_store=lambda _: MemoryStore(), jitter=lambda: 0.5
    )
    ticks = itertools.count(1000)
    one.reporter = Reporting(make=lambda: turn, least=0.0, clock=lambda: moment(float(next(ticks)) * 10))
    for number in range(400):
        one.step(moment(1000.0 + number))
        if hub.bodies(7) and "failed" in hub.bodies(7)[0]:
            break
        time.sleep(0.01)
    one.reporter.stop()
    for thread in threading.enumerate():
        if thread.name == "reports":
            thread.join(10)
    assert set(hub.statuses) == {COMMIT}
    assert hub.states(COMMIT)[-1] == ("dstack/train", "error")
    assert len(hub.bodies(7)) == 1
    assert TOKEN not in caplog.text
