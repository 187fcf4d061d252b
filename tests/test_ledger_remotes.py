"""One suite for the ledger over every way to reach a remote: a path, git://, http with a password, and ssh."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from dstack.ledger.cache import Cache
from dstack.ledger.code import find_code
from dstack.ledger.git import Context
from dstack.ledger.gitledger import GitLedger
from dstack.ledger.push import RefUpdate
from dstack.ledger.remote import Remote, find_remote
from dstack.model import refs
from dstack.model.errors import Failed, Unavailable
from dstack.model.observation import Outcome
from dstack.model.refs import RunKey
from runner.codecache import CodeCache
from tests.git_servers import PASSWORD, Daemon, GitDaemon, HttpServer, SshServer, running
from tests.repositories import Place, bare, hook, sh, work
from tests.watching import watched_processes

KINDS = ["path", "git", "http", pytest.param("ssh", marks=pytest.mark.sshd)]


@dataclass
class There:
    """A remote somewhere. `repository` is its folder, as nobody but the test sees it."""

    repository: Path
    url: str
    server: Daemon | HttpServer | None

    @property
    def remote(self) -> Remote:
        return find_remote(self.url, Path("/"))

    def cache(self, path: Path) -> Cache:
        remote = self.remote
        return Cache(path, remote.url, context=Context(folder=path, environment=remote.environment, timeout=30.0))


@pytest.fixture(params=KINDS)
def there(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[There]:
    """An empty remote, reached in each of the ways."""
    folder = tmp_path / "served"
    repository = bare(folder / "state.git")
    if request.param == "path":
        yield There(repository, str(repository), None)
        return
    server: Daemon | HttpServer
    if request.param == "git":
        server = GitDaemon(folder)
    elif request.param == "http":
        server = HttpServer(folder)
    else:
        server = SshServer(folder)
        monkeypatch.setenv("GIT_SSH_COMMAND", server.client())
    with running(server):
        yield There(repository, server.url("state.git"), server)


@pytest.fixture
def http(tmp_path: Path) -> Iterator[There]:
    """An empty remote behind a password."""
    folder = tmp_path / "served"
    repository = bare(folder / "state.git")
    server = HttpServer(folder)
    with running(server):
        yield There(repository, server.url("state.git"), server)


def commit(cache: Cache, text: str) -> str:
    return cache.objects.write_commit(cache.objects.write_tree({}), [], text)


def place(there: There, folder: Path) -> Place:
    """A clone of the user's, whose origin is there."""
    top = work(folder)
    sh(top, "remote", "add", "origin", there.url)
    code = find_code(top)
    remote = code.remote()
    path = folder.with_name("cache")
    context = Context(folder=path, environment=remote.environment)
    cache = Cache(path, remote.url, borrow=code.objects, context=context)
    return Place(code, cache, GitLedger(cache))


def test_a_run_is_submitted_seen_by_others_and_its_code_fetched_at_depth_1(there: There, tmp_path: Path) -> None:
    here = place(there, tmp_path / "code")
    (here.code.top / "new.py").write_text("print('new')\n")
    made = here.submit()
    seen = GitLedger(there.cache(tmp_path / "other")).observe()
    assert set(seen.runs) == {"fast-rabbit-1"}
    tip = sh(there.repository, "rev-parse", refs.snapshot(made.key))
    cache = CodeCache(tmp_path / "runner.git", there.remote.url, there.remote.environment)
    cache.fetch(RunKey.from_text(str(made.key)), tip)
    assert sh(tmp_path / "runner.git", "show", f"{tip}:new.py") == "print('new')"
    assert sh(tmp_path / "runner.git", "rev-list", "--count", tip) == "1"


def test_a_push_is_all_or_nothing_and_leased(there: There, tmp_path: Path) -> None:
    ours, theirs = there.cache(tmp_path / "ours"), there.cache(tmp_path / "theirs")
    one, two = refs.runner("otter"), refs.runner("badger")
    first = commit(ours, "first")
    assert ours.push([RefUpdate(one, None, first), RefUpdate(two, None, first)], atomic=True).won
    assert theirs.poll() == {one: first, two: first}
    second = commit(theirs, "second")
    assert theirs.push([RefUpdate(one, first, second)], atomic=True).won
    third = commit(ours, "third")
    lost = ours.push([RefUpdate(one, first, third), RefUpdate(two, first, third)], atomic=True)
    assert lost.outcomes[one] is Outcome.LOST
    assert not lost.won_ref(two)
    each = ours.push([RefUpdate(one, first, third), RefUpdate(two, first, third)], atomic=False)
    assert (each.won_ref(one), each.won_ref(two)) == (False, True)
    assert ours.poll() == theirs.poll() == {one: second, two: third}


def test_a_hook_refuses_in_its_own_words(there: There, tmp_path: Path) -> None:
    hook(there.repository, "pre-receive", "echo 'GitLab: You are not allowed to push code to this project.'; exit 1")
    with pytest.raises(Failed, match=r"GitLab: You are not allowed.*ask for the right to push"):
        place(there, tmp_path / "code").submit()


def test_a_remote_that_was_away_is_back(there: There, tmp_path: Path) -> None:
    cache = there.cache(tmp_path / "cache")
    first = commit(cache, "first")
    cache.push([RefUpdate(refs.runner("otter"), None, first)], atomic=True)
    if there.server:
        there.server.stop()
    else:
        there.repository.rename(tmp_path / "away")
    with pytest.raises(Unavailable, match=r"state\.git can't be reached"):
        cache.poll()
    second = commit(cache, "second")
    with pytest.raises(Unavailable):
        cache.push([RefUpdate(refs.runner("otter"), first, second)], atomic=True)
    if there.server:
        there.server.start()
    else:
        (tmp_path / "away").rename(there.repository)
    assert cache.poll() == {refs.runner("otter"): first}
    assert cache.push([RefUpdate(refs.runner("otter"), first, second)], atomic=True).won


def test_a_state_remote_that_shares_no_history_with_the_code_gets_the_files_alone(there: There, tmp_path: Path) -> None:
    top = work(tmp_path / "origin")
    for number in range(3):
        sh(top, "commit", "--quiet", "--allow-empty", "-m", str(number))
    sh(tmp_path, "clone", "--quiet", "--depth=1", top.as_uri(), "code")
    code = tmp_path / "code"
    sh(code, "config", "dstack.remote", there.url)
    found = find_code(code)
    remote = found.remote()
    path = tmp_path / "cache"
    context = Context(folder=path, environment=remote.environment)
    cache = Cache(path, remote.url, borrow=found.objects, context=context)
    made = Place(found, cache, GitLedger(cache)).submit()
    message = sh(there.repository, "log", "--format=%B", refs.snapshot(made.key))
    assert f"Head: {found.head}" in message
    assert sh(there.repository, "rev-list", "--count", refs.snapshot(made.key)) == "1"


def test_where_the_remote_has_the_history_the_snapshot_stands_on_it(there: There, tmp_path: Path) -> None:
    here = place(there, tmp_path / "code")
    sh(here.code.top, "push", "--quiet", "origin", "HEAD:refs/heads/main")
    assert here.snapshot().commit == here.code.head
    (here.code.top / "new.py").write_text("print('new')\n")
    made = here.submit()
    assert sh(there.repository, "rev-parse", f"{refs.snapshot(made.key)}^") == here.code.head


@pytest.mark.lfs
def test_a_remote_without_lfs_is_named(http: There, tmp_path: Path) -> None:
    here = place(http, tmp_path / "code")
    sh(here.code.top, "lfs", "install", "--local")
    sh(here.code.top, "lfs", "track", "*.bin")
    sh(here.code.top, "add", ".gitattributes")
    (here.code.top / "big.bin").write_bytes(b"big" * 1000)
    with pytest.raises(Failed, match=r"git LFS can't bring the large files to http://127.*use a remote that takes LFS"):
        here.submit()


def test_a_poll_of_an_unchanged_remote_is_one_fetch_of_few_requests(
    http: There, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = http.cache(tmp_path / "cache")
    cache.push([RefUpdate(refs.runner("otter"), None, commit(cache, "x"))], atomic=True)
    cache.poll()
    server = http.server
    assert isinstance(server, HttpServer)
    traces, config = tmp_path / "traces", tmp_path / "gitconfig"
    traces.mkdir()
    config.write_text(f"[trace2]\n\teventTarget = {traces}\n")  # git writes a file for each of its processes there
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    server.requests.clear()
    cache.poll()
    # Refused once (git asks without credentials first), asked again with them; then the list of the refs.
    assert [method for method, _ in server.requests] == ["GET", "GET", "POST"]
    started = [json.loads(line) for path in traces.iterdir() for line in path.read_text().splitlines()]
    commands = [" ".join(one["argv"]) for one in started if one["event"] == "start"]
    assert sum("fetch --no-tags" in one for one in commands) == 1
    assert len(commands) <= 4, commands


def test_the_password_of_an_address_is_in_no_process_list_file_or_message(http: There, tmp_path: Path) -> None:
    hook(http.repository, "pre-receive", "sleep 0.3")
    here = place(http, tmp_path / "code")
    with watched_processes() as seen:
        made = here.submit()
        here.cache.poll()
        tip = sh(http.repository, "rev-parse", refs.snapshot(made.key))
        CodeCache(tmp_path / "code.git", http.remote.url, http.remote.environment).fetch(made.key, tip)
    assert any(b"remote-http" in line for line in seen), "no push or fetch was seen"
    assert not [line for line in seen if b"pl4nted" in line]
    server = http.server
    assert server
    server.stop()
    with pytest.raises(Unavailable) as caught:
        here.cache.poll()
    assert "pl4nted" not in str(caught.value) + repr(here.code.remote())
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and b"pl4nted" in path.read_bytes()]
    assert kept == []


@pytest.mark.parametrize("way", ["helper", "askpass", "local helper", "header", "insteadOf", "environment", "netrc"])
def test_the_users_own_ways_to_give_credentials_work(
    http: There, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    server = http.server
    assert isinstance(server, HttpServer)
    plain = server.plain_url("state.git")
    top = work(tmp_path / "code")
    sh(top, "remote", "add", "origin", plain)
    script = tmp_path / "helper"
    if way == "askpass":
        script.write_text(f"#!/bin/sh\ncase $1 in Username*) echo ada;; *) echo '{PASSWORD}';; esac\n")
        monkeypatch.setenv("GIT_ASKPASS", str(script))
    else:
        script.write_text(f"#!/bin/sh\nprintf 'username=ada\\npassword={PASSWORD}\\n'\n")
    script.chmod(0o755)
    if way == "helper":
        config = tmp_path / "gitconfig"
        config.write_text(f"[credential]\n\thelper = {script}\n")
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    elif way == "local helper":
        sh(top, "config", "credential.helper", str(script))
    elif way == "header":
        server.login, server.extra = None, {"X-Token": "yes"}
        sh(top, "config", f"http.{plain}.extraHeader", "X-Token: yes")
    elif way == "insteadOf":
        config = tmp_path / "gitconfig"
        config.write_text(f'[url "{server.url("")}"]\n\tinsteadOf = http://127.0.0.1:{server.port}/\n')
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    elif way == "environment":
        monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
        monkeypatch.setenv("GIT_CONFIG_KEY_0", "credential.helper")
        monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(script))
    elif way == "netrc":
        netrc = Path(os.environ["HOME"]) / ".netrc"
        netrc.write_text(f"machine 127.0.0.1 login ada password {PASSWORD}\n")
    code = find_code(top)
    remote = code.remote()
    path = tmp_path / "cache"
    assert Cache(path, remote.url, context=Context(folder=path, environment=remote.environment)).poll() == {}


def test_without_credentials_nobody_is_asked_and_the_ways_to_give_them_are_named(http: There, tmp_path: Path) -> None:
    server = http.server
    assert isinstance(server, HttpServer)
    cache = Cache(tmp_path / "cache", server.plain_url("state.git"))
    with pytest.raises(Failed, match=r"credential helper.*GIT_ASKPASS"):
        cache.poll()


def test_a_server_that_sends_us_elsewhere_does_not_take_the_password_there(http: There, tmp_path: Path) -> None:
    server = http.server
    assert isinstance(server, HttpServer)
    bare(tmp_path / "elsewhere/state.git")
    other = HttpServer(tmp_path / "elsewhere")
    where = f"http://127.0.0.1:{other.port}/state.git/info/refs?service=git-upload-pack"
    server.answers = [(302, {"Location": where}, "")]
    with running(other), pytest.raises(Failed):
        http.cache(tmp_path / "cache").poll()
    assert other.requests
    assert other.logins == set()


ANSWERS: list[tuple[int, str, type[Exception], str]] = [
    (403, "The `acme' organization has enabled or enforced SAML SSO.\n", Failed, "authorise"),
    (404, "Repository not found.\n", Failed, "address"),
    (429, "Retry-After: 7\n", Unavailable, "patience"),
    (503, "", Unavailable, "trouble of its own"),
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_a_server_answers_is_explained(
    http: There, tmp_path: Path, answer: tuple[int, str, type[Exception], str]
) -> None:
    status, body, kind, word = answer
    server = http.server
    assert isinstance(server, HttpServer)
    server.answers = [(status, {"Retry-After": "7"}, body)]
    with pytest.raises(kind, match=word) as caught:
        http.cache(tmp_path / "cache").poll()
    if isinstance(caught.value, Unavailable):
        assert caught.value.retry_after == (7.0 if body else None)


@pytest.mark.sshd
def test_ssh_says_what_is_wrong_with_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare(tmp_path / "served/state.git")
    server = SshServer(tmp_path / "served")
    with running(server):
        remote = find_remote(server.url("state.git"), tmp_path)
        cache = Cache(tmp_path / "cache", remote.url, context=Context(folder=tmp_path, environment=remote.environment))
        (tmp_path / "nobody").touch()
        monkeypatch.setenv("GIT_SSH_COMMAND", server.client(known=tmp_path / "nobody"))
        with pytest.raises(Failed, match="known_hosts"):
            cache.poll()
        key = (server.keys / "user.pub").read_text().split()
        (tmp_path / "changed").write_text(f"[127.0.0.1]:{server.port} {key[0]} {key[1]}\n")
        monkeypatch.setenv("GIT_SSH_COMMAND", server.client(known=tmp_path / "changed"))
        with pytest.raises(Failed, match="another than before"):
            cache.poll()
        monkeypatch.setenv("GIT_SSH_COMMAND", server.client(key=server.keys / "host"))
        with pytest.raises(Failed, match="ssh-add"):
            cache.poll()


@pytest.mark.sshd
def test_an_alias_of_the_users_ssh_settings_works_like_any_host(home: Path, tmp_path: Path) -> None:
    repository = bare(tmp_path / "served/state.git")
    server = SshServer(tmp_path / "served")
    config = home / "config"
    words = server.client().split()
    options = [word.replace("=", " ") for flag, word in pairwise(words) if flag == "-o"]
    lines = [f"Port {server.port}", "HostName 127.0.0.1", f"IdentityFile {server.keys / 'user'}", *options]
    config.write_text("Host state\n" + "".join(f"  {line}\n" for line in lines))
    top = work(tmp_path / "code")
    # ssh takes the home from the list of users, not from $HOME: so a test names the file.
    sh(top, "config", "core.sshCommand", f"ssh -F {config}")
    sh(top, "remote", "add", "origin", f"state:{repository}")
    with running(server):
        remote = find_code(top).remote()
        path = tmp_path / "cache"
        assert Cache(path, remote.url, context=Context(folder=path, environment=remote.environment)).poll() == {}


def test_a_git_without_a_terminal_cannot_ask_there(tmp_path: Path) -> None:
    """Not even ssh, which would ask at the terminal of whoever started the daemon."""
    from dstack.ledger import git  # noqa: PLC0415 (the one that is looked into)

    top = work(tmp_path / "code")
    sh(top, "config", "alias.where", "!ps -o sid= -p $$")
    out = git.output(Context(folder=top), "where").split()
    mine = subprocess.run(["ps", "-o", "sid=", "-p", str(os.getpid())], capture_output=True, check=True).stdout.split()
    assert out != mine


def test_a_poll_that_hangs_is_ended_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the connection and says nothing, as behind a network that was cut."""
    monkeypatch.setattr("dstack.ledger.cache._LOOK_SECONDS", 0.5)
    repository = bare(tmp_path / "served/state.git")
    server = HttpServer(tmp_path / "served", login=None)
    with running(server):
        there = There(repository, server.url("state.git"), server)
        cache = there.cache(tmp_path / "cache")
        cache.push([RefUpdate(refs.runner("otter"), None, commit(cache, "x"))], atomic=True)
        cache.poll()
    with socket.create_server(("127.0.0.1", server.port)):
        with pytest.raises(Unavailable, match=r"longer than 0\.5 s"):
            cache.poll()
        monkeypatch.setattr("dstack.ledger.cache._BRIEF_SECONDS", 0.2)
        with pytest.raises(Unavailable, match=r"longer than 0\.2 s"):
            cache.poll()
    with running(server):
        monkeypatch.setattr("dstack.ledger.cache._BRIEF_SECONDS", 30.0)
        assert list(cache.poll()) == [refs.runner("otter")]
