"""The project's own frame: who wins on `sys.path`, what the model may not do, and what the metadata promises."""

import ast
import importlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import dstack
from dstack.__main__ import rival_distribution

ROOT = Path(__file__).parent.parent
PACKAGES = ("cli", "controller", "dstack", "runner", "webhooks")
HOSTILE = 'raise SystemExit("the user\'s own package was imported")\n'
DOOR = "import sys, {imports}\ndef main():\n    print('ours')\n    {body}\n"
# What pip writes into a console script. -S and the appended folder: as in an installation, PYTHONPATH comes first.
SCRIPT = "import sys; sys.path.append({site!r}); from dstack.__main__ import {entry}; sys.exit({entry}())"

# An outside thing has one home, so that a change of library is a change in one place.
HOMES = {
    "pygit2": ("dstack/ledger/",),
    "docker": ("runner/engine.py", "runner/connection.py", "runner/credentials.py"),
    "tinydb": ("runner/", "webhooks/deliveries.py"),
    "rich": ("cli/",),
    "starlette": ("webhooks/",),
    "uvicorn": ("webhooks/",),
    "prometheus_client": ("webhooks/",),
    "click": ("cli/",),
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An installation in little: our entry module, and doors that say that they were reached."""
    site = tmp_path / "site"
    for package in PACKAGES:
        (site / package).mkdir(parents=True)
        (site / package / "__init__.py").touch()
    for name in ("__main__.py", "interrupts.py"):
        shutil.copy(ROOT / "dstack" / name, site / "dstack")
    write_door(site, "main", "return 0", imports="controller, runner, webhooks")
    write_door(site, "runner_door", "return 7", imports="runner")
    return site


def write_door(site: Path, name: str, body: str, *, imports: str = "cli") -> None:
    (site / "cli" / f"{name}.py").write_text(DOOR.format(imports=imports, body=body))


def enter(site: Path, folder: Path, entry: str = "main") -> subprocess.CompletedProcess[str]:
    """Run a console script in a folder that is also on PYTHONPATH."""
    return subprocess.run(
        [sys.executable, "-S", "-c", SCRIPT.format(site=str(site), entry=entry)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder with packages named like ours; its `dstack` folder holds data, no package."""
    folder = tmp_path / "project"
    for package in ("cli", "controller", "runner", "webhooks"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text(HOSTILE)
    (folder / "dstack").mkdir()
    (folder / "dstack" / "notes.txt").touch()
    return folder


def test_a_users_own_packages_do_not_hide_ours(site: Path, project: Path) -> None:
    result = enter(site, project)
    assert (result.returncode, result.stdout, result.stderr) == (0, "ours\n", "")


def test_without_the_entry_module_they_would(site: Path, project: Path) -> None:
    script = f"import sys; sys.path.append({str(site)!r}); import cli.main"
    command = [sys.executable, "-S", "-c", script]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert "the user's own package was imported" in result.stderr


def test_each_script_opens_its_door_and_returns_its_code(site: Path, project: Path) -> None:
    assert enter(site, project, "runner_main").returncode == 7


def test_an_interrupt_ends_with_130_and_no_traceback(site: Path, project: Path) -> None:
    write_door(site, "main", "raise KeyboardInterrupt")
    result = enter(site, project)
    assert (result.returncode, result.stderr) == (130, "")


@pytest.mark.parametrize("rival", ["dstack-0.19.2.dist-info", "dstack-0.18.egg-info"])
def test_beside_another_distribution_of_the_name_it_says_so_and_stops(site: Path, project: Path, rival: str) -> None:
    (site / rival).mkdir()
    result = enter(site, project)
    assert (result.returncode, result.stdout) == (1, "")
    assert str(site / rival) in result.stderr
    assert "pipx install dstack-gitops" in result.stderr


def test_our_own_metadata_is_no_rival(tmp_path: Path) -> None:
    (tmp_path / "dstack_gitops-0.1.0.dist-info").mkdir()
    (tmp_path / "dstack").mkdir()
    assert rival_distribution([str(tmp_path), str(tmp_path / "gone"), str(tmp_path / "python311.zip")]) is None


def modules(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_bytes())


def calls(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            yield node.lineno, name


def test_the_model_asks_no_clock_and_touches_no_file() -> None:
    # The import contracts let `datetime` pass, as a type; here is the part that they can't see.
    impure = {"now", "utcnow", "today", "open", "print", "input", "exec", "eval", "__import__"}
    found = [
        f"{path}:{line}: {name}()"
        for path, tree in modules("dstack/model")
        for line, name in calls(tree)
        if name in impure
    ]
    assert found == []


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_an_outside_thing_has_one_home() -> None:
    strays = [
        f"{path} imports {name}"
        for path, tree in modules(*PACKAGES)
        for name in sorted(set(imported(tree)))
        if name in HOMES and not path.startswith(HOMES[name])
    ]
    assert strays == []


@pytest.fixture
def metadata() -> dict[str, object]:
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def test_the_version_stands_once_for_people_and_once_for_pip(metadata: dict[str, object]) -> None:
    assert metadata["version"] == dstack.__version__
    assert f"## {dstack.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_console_scripts_exist(metadata: dict[str, object]) -> None:
    scripts = metadata["scripts"]
    assert isinstance(scripts, dict)
    assert set(scripts) == {"dstack", "dstack-runner"}
    for target in scripts.values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
