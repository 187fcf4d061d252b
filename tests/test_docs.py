"""The documentation: its commands run as they stand, its links lead somewhere, and its tables match the code."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cli.index import COMMANDS
from tests import console
from tests.console import Session, Step

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md")])
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
# Until all of them are written, only what needs no command of ours.
WRITTEN = all((ROOT / (COMMANDS[name].module.replace(".", "/") + ".py")).exists() for name in ("run", "artifacts"))
SESSIONS = [
    pytest.param(session, id=f"{page.relative_to(ROOT)}:{number}")
    for page in PAGES
    for number, session in enumerate(console.sessions(page.read_text()))
    if WRITTEN or "dstack " not in console.script(session)
]


@pytest.fixture
def commands(tmp_path: Path) -> Mapping[str, str]:
    """An environment in which `dstack` and `python` are those of this checkout."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, entry in (("dstack", "main"), ("dstack-runner", "runner_main")):
        path = folder / name
        path.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
            f"from dstack.__main__ import {entry}\nsys.exit({entry}())\n"
        )
        path.chmod(0o755)
    return {"PATH": f"{folder}:{Path(sys.executable).parent}:/usr/bin:/bin:/usr/sbin:/sbin"}


def start_folder(where: str, tmp_path: Path) -> Path:
    """Where a session begins."""
    folder = tmp_path / "project"
    if where == "empty":
        folder.mkdir()
        return folder
    shutil.copytree(ROOT / "examples" / where, folder)
    for command in ("init --quiet", "add --all", "commit --quiet --message=example"):
        subprocess.run(["git", *command.split()], cwd=folder, check=True)
    return folder


@pytest.mark.timeout(180)
@pytest.mark.parametrize("session", SESSIONS)
def test_the_commands_do_what_the_page_says(session: Session, tmp_path: Path, commands: Mapping[str, str]) -> None:
    folder = start_folder(session.where, tmp_path)
    assert console.run(session, folder, commands, seconds=150) == []


def test_there_are_pages_to_test() -> None:
    assert ROOT / "README.md" in PAGES
    assert ROOT / "docs" / "git.md" in PAGES


def anchors(page: Path) -> set[str]:
    """The anchors GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text().replace("\n", " ")):
        linked = page.parent / target if target else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), f"{target}#{anchor}"


PAGE = """\
<!-- tested: empty -->
```console
$ echo one; echo two   # says two things
one
...
$ cd /
```
Between, a block that nobody runs:
```
$ false
```
<!-- tested: same -->
```
$ pwd
/
```
<!-- tested: digits -->
```console
$ ls
```
"""


def test_a_page_becomes_sessions() -> None:
    first, second = console.sessions(PAGE)
    assert first.steps == (
        Step(command="echo one; echo two", expected=("one", "...")),
        Step(command="cd /"),
        Step(command="pwd", expected=("/",)),
    )
    assert second == Session(where="digits", steps=(Step(command="ls"),))


def test_a_page_can_not_begin_in_the_middle() -> None:
    with pytest.raises(ValueError, match="first tested block"):
        list(console.sessions("<!-- tested: same -->\n```\n$ true\n```\n"))


@pytest.mark.parametrize(
    ("expected", "output", "good"),
    [
        ((), "anything\n", True),
        (("a",), "a\n", True),
        (("a",), "a  \n\n", True),
        (("a",), "b\n", False),
        (("a",), "a\nb\n", False),
        (("a", "..."), "a\nb\nc\n", True),
        (("a", "..."), "a\n", True),
        (("...", "c"), "a\nb\nc\n", True),
        (("run ... is DONE",), "run fast-rabbit-1 is DONE\n", True),
        (("run ... is DONE",), "run fast-rabbit-1 is FAILED\n", False),
        (("1.5",), "125\n", False),
    ],
)
def test_output_is_compared_as_a_person_would(expected: tuple[str, ...], output: str, *, good: bool) -> None:
    assert console.matches(expected, output) == good


def outcome(text: str, folder: Path, seconds: float = 20) -> list[str]:
    (session,) = console.sessions(f"<!-- tested: empty -->\n```\n{text}```\n")
    return console.run(session, folder, {}, seconds=seconds)


def test_a_session_is_one_shell(tmp_path: Path) -> None:
    assert outcome("$ cd /\n$ word=hello\n$ echo $word from $PWD\nhello from /\n", tmp_path) == []


def test_a_command_that_fails_is_named(tmp_path: Path) -> None:
    (complaint,) = outcome("$ true\n$ echo oh no; false\n$ echo never\n", tmp_path)
    assert complaint == "$ echo oh no; false\nended with 1:\noh no\n"


def test_another_output_is_shown(tmp_path: Path) -> None:
    (complaint,) = outcome("$ echo right\nwrong\n", tmp_path)
    assert "should print:\nwrong\nbut printed:\nright" in complaint


def test_what_a_session_leaves_running_is_ended(tmp_path: Path) -> None:
    assert outcome("$ sleep 300 > /dev/null 2>&1 & echo $! > pid\n", tmp_path) == []
    pid = int((tmp_path / "pid").read_text())
    assert wait_until(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    """Whether a process does anything still; one that only waits to be reaped doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(is_so: Callable[[], bool], seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(0.01)
    return is_so()


def test_a_block_can_be_a_file(tmp_path: Path) -> None:
    written = "<!-- tested: empty, as a.yaml -->\n```yaml\na: '$b'\n```\n"
    read = "<!-- tested: same -->\n```\n$ cat a.yaml\na: '$b'\n```\n"
    (session,) = console.sessions(written + read)
    assert console.run(session, tmp_path, {}, seconds=20) == []


def test_a_session_that_hangs_is_given_up(tmp_path: Path) -> None:
    assert outcome("$ sleep 300\n", tmp_path, seconds=0.5) == ["not at its end after 0.5 s"]
