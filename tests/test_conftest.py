"""What a session promises: nothing of the developer's is touched, nothing leaves the machine, CI skips nothing."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.network import NetworkUsedInTestError

ROOT = Path(__file__).parent.parent


def outcome_of(text: str, folder: Path, *, ci: bool) -> str:
    """What a session with our rules says of a file of tests."""
    (folder / "test_it.py").write_text(f"import pytest\n{text}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", "-c", os.devnull]
    # Without a folder of its own it would remove what earlier sessions left, which can take minutes.
    own = folder.with_name(f"{folder.name}-base")
    result = subprocess.run(
        [*command, f"--rootdir={folder}", f"--basetemp={own}", str(folder)],
        env={**os.environ, "CI": "true" if ci else "", "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout


SKIPS = """
import pytest
@pytest.mark.skip(reason="no time")
def test_by_mark(): pass
def test_within(): pytest.skip("no time")
@pytest.fixture
def part(): pytest.skip("no time")
def test_in_a_fixture(part): pass
"""
EXPECTED = """
@pytest.mark.xfail
def test_expected(): assert False
"""


def test_under_ci_a_skip_is_a_failure_and_an_expected_failure_is_none(tmp_path: Path) -> None:
    output = outcome_of(SKIPS + EXPECTED, tmp_path, ci=True)
    assert output.count("was skipped, and under CI nothing may be") >= 3
    assert "1 failed, 1 xfailed, 2 errors" in output


def test_under_ci_a_whole_file_that_is_skipped_is_an_error(tmp_path: Path) -> None:
    output = outcome_of("pytest.skip('no time', allow_module_level=True)", tmp_path, ci=True)
    assert "under CI nothing may be" in output
    assert "1 failed" in output or "1 error" in output


def test_elsewhere_a_skip_is_a_skip(tmp_path: Path) -> None:
    assert "3 skipped" in outcome_of(SKIPS, tmp_path, ci=False)


def test_home_is_empty_and_apart(home: Path, tmp_path: Path) -> None:
    assert Path.home() == home
    assert list(home.iterdir()) == list(tmp_path.iterdir()) == []


def test_git_knows_nothing_of_the_developer() -> None:
    result = subprocess.run(["git", "config", "--list"], cwd="/", capture_output=True, text=True, check=False)
    assert result.stdout == ""


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "pypi.org"])
def test_the_network_is_out_of_reach(host: str) -> None:
    with pytest.raises(NetworkUsedInTestError, match=host):
        socket.create_connection((host, 443), timeout=1)


def test_a_datagram_stays_here_too() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, pytest.raises(NetworkUsedInTestError):
        sender.sendto(b"hello", ("192.0.2.1", 53))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_within_reach(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection((host, server.getsockname()[1]), timeout=5).close()


def test_unix_sockets_are_within_reach(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        client.connect(path)
