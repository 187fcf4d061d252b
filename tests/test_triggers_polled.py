"""Every kind of event by polling alone, with no webhook, over smart HTTP with a password and over SSH."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.turn import Controller
from tests.git_servers import HttpServer, SshServer, can_serve_ssh, running
from tests.repositories import sh
from tests.test_triggering import Town

WORKFLOWS = """
workflows:
- {name: branch, commands: [x], on: {push: {branches: ['**', '!quiet']}}}
- {name: docs, commands: [x], on: {push: {paths: ['docs/**']}}}
- {name: release, commands: [x], on: {push: {tags: ['v*']}}}
- {name: check, commands: [x], on: pull-request}
- {name: night, commands: [x], on: {schedule: '@daily'}}
"""

# A connection for all of it, as who polls often has it.
SHARED = "-o ControlMaster=auto -o ControlPersist=5"


@contextmanager
def _served(top: Path, transport: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer | SshServer]:
    if transport == "ssh":
        if not can_serve_ssh():
            pytest.skip("no sshd that this user may start")
        ssh = SshServer(top)
        # A socket's path must be short.
        with tempfile.TemporaryDirectory(prefix="ssh") as sockets, running(ssh):
            monkeypatch.setenv("GIT_SSH_COMMAND", f"{ssh.client()} {SHARED} -o ControlPath={sockets}/%C")
            yield ssh
    else:
        with running(http := HttpServer(top)):
            yield http


@pytest.mark.parametrize("transport", ["http", "ssh"])
def test_pushes_tags_pull_requests_and_the_clock_start_runs(
    transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = Town(tmp_path)
    sh(town.code, "config", "uploadpack.allowFilter", "true")
    town.push(WORKFLOWS)
    with _served(tmp_path, transport, monkeypatch) as server:
        town.url = server.url("code")
        one = town.controller()
        town.turns(one, times=2)
        assert town.started() == [], "what is there at first is no news"

        docs = town.push(WORKFLOWS, **{"docs/a.md": "a"})
        town.push(WORKFLOWS, "quiet", **{"train.py": "1"})
        new = town.push(WORKFLOWS, "new", **{"train.py": "2"})
        tagged = town.push(WORKFLOWS, "refs/tags/v1", **{"train.py": "3"})
        github = town.push(WORKFLOWS, "refs/pull/7/head", **{"train.py": "4"})
        gitlab = town.push(WORKFLOWS, "refs/merge-requests/3/head", **{"train.py": "5"})
        expected = [f"branch {docs}", f"docs {docs}", f"branch {new}", f"release {tagged}"]
        expected += [f"check {github}", f"check {gitlab}"]
        _turn_until(town, one, expected)

        town.time += 24 * 3600.0
        _turn_until(town, one, [*expected, f"night {docs}"])

        sh(town.code, "update-ref", "-d", "refs/heads/new")
        sh(town.tree, "reset", "--quiet", "--hard", docs)
        forced = town.push(WORKFLOWS, **{"train.py": "forced"})
        expected += [f"night {docs}", f"branch {forced}"]
        _turn_until(town, one, expected)
        again = town.push(WORKFLOWS, "new", **{"train.py": "again"})
        _turn_until(town, one, [*expected, f"branch {again}"])


def _turn_until(town: Town, one: Controller, expected: list[str]) -> None:
    """Turn until these have started, and then twice more: no others do, and none twice."""
    for _ in range(12):
        town.turns(one, times=1)
        if town.started() == sorted(expected):
            break
    town.turns(one, times=2)
    assert town.started() == sorted(expected)
