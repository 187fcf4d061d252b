"""What holds for every test: a home of its own, no network, and under CI nothing left out."""

import logging
import os
import shutil
import signal
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

from tests import git_servers, machines, network

# Fixtures and hooks of the servers that tests start.
pytest_plugins = ["tests.docker_engine", "tests.s3_server"]

CI = os.environ.get("CI") == "true"
IDENTITY = {"NAME": "Ada Tester", "EMAIL": "ada@example.org"}
XDG = {"CONFIG": ".config", "DATA": ".local/share", "STATE": ".local/state", "CACHE": ".cache"}

network.close()
if os.environ.get("PYTEST_XDIST_WORKER"):
    # Coverage counts the lines of the tests' own processes. In each that they start it would cost a tenth of a second.
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if CI else "dev")


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, apart from `tmp_path`, and an environment in which nothing of the developer's is left."""
    folder = tmp_path_factory.mktemp("home")
    for name in os.environ:
        if name.startswith(("GIT_", "DSTACK_", "AWS_", "XDG_")):
            monkeypatch.delenv(name)
    for name, value in environment(folder).items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture(autouse=True)
def logging_as_before() -> Generator[None]:
    """A daemon started within a test logs to what is standard error then, and closed soon after."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    added = [one for one in root.handlers if one not in handlers and type(one) is logging.StreamHandler]
    for one in added:
        root.removeHandler(one)
    root.setLevel(level)


@pytest.fixture(autouse=True)
def signals_as_before() -> Generator[None]:
    """A daemon's command that a test calls in this process obeys signals, also when it has ended."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def environment(folder: Path) -> dict[str, str]:
    """The variables that keep git, dstack and the network away from whoever runs the tests."""
    identity = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in IDENTITY.items()}
    xdg = {f"XDG_{kind}_HOME": str(folder / place) for kind, place in XDG.items()}
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    return {"HOME": str(folder), **xdg, **identity, **quiet, **network.CLOSED}


def absent() -> dict[str, str]:
    """Markers whose tests can't run on this machine, and why. Under CI none: there they fail instead."""
    if CI:
        return {}
    there = {
        "keys": (all(map(shutil.which, ("ssh-keygen", "ssh-agent", "gpg"))), "no gnupg or openssh-client is installed"),
        "lfs": (shutil.which("git-lfs") is not None, "git-lfs is not installed"),
        "machines": (machines.can_make(), "not root, or iproute2 is not installed"),
        "sshd": (git_servers.can_serve_ssh(), "not root, or openssh-server is not installed"),
    }
    return {marker: why for marker, (good, why) in there.items() if not good}


def pytest_report_header() -> list[str]:
    """Say first what is left out."""
    return [f"left out: tests marked `{marker}`: {why}" for marker, why in absent().items()]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what can't run here."""
    left_out = [item for item in items if any(item.get_closest_marker(marker) for marker in absent())]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under CI a skipped test is a failed one: nothing may look tested that wasn't."""
    report = yield
    if CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and under CI nothing may be: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole file that skips itself while it is collected."""
    report = yield
    if CI and report.outcome == "skipped":
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} skipped itself, and under CI nothing may be: {report.longrepr}"
    return report
