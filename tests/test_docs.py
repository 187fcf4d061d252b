"""The documentation: its commands run as they stand, its links lead somewhere, and its tables match the code."""

import difflib
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import click
import pytest

from cli.index import COMMANDS
from cli.main import dstack
from cli.run import RunGroup
from cli.run_options import run_options
from cli.runner_door import runner
from docs import generate, pictures
from dstack.model import language
from dstack.model.job import Reason
from dstack.model.settings import Settings
from dstack.model.status import Status
from dstack.model.variables import parse_variables
from dstack.model.workflows import parse_workflows
from tests import console
from tests.console import Session, Step
from tests.installed import ROOT, search_path

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/README.md")])
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
SESSIONS = [
    pytest.param(session, id=f"{page.relative_to(ROOT)}:{number}")
    for page in PAGES
    for number, session in enumerate(console.sessions(page.read_text()))
]


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
def test_the_commands_do_what_the_page_says(session: Session, tmp_path: Path) -> None:
    folder = start_folder(session.where, tmp_path)
    environment = {"PATH": search_path(tmp_path / "bin")}
    assert console.run(session, folder, environment, seconds=150) == []


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


def test_every_picture_is_shown_and_needs_nothing_from_elsewhere() -> None:
    page = (ROOT / "docs" / "pictures.md").read_text()
    drawn = {f"{name}-{width}.svg" for name in pictures.SHOWN for width in pictures.WIDTHS}
    assert {path.name for path in pictures.FOLDER.iterdir()} == drawn
    for name in drawn:
        assert f"(pictures/{name})" in page
        text = (pictures.FOLDER / name).read_text()
        assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 (our own)
        assert "url(http" not in text


def test_a_picture_is_what_a_terminal_shows() -> None:
    drawn = pictures.picture("status", "\x1b[32mDONE\x1b[0m\r\n  waits\x1b[K\r\n", 80)
    assert "dstack&#160;status" in drawn
    assert re.search(r'x="24.4" [^>]*>waits<', drawn)
    assert "\x1b" not in drawn


def first_cells(page: str, heading: str) -> list[str]:
    """The words in backquotes or capitals in the first column of the tables under a heading."""
    section = (ROOT / page).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)
    return [word for cell in cells for word in re.findall(r"`([\w-]+)`|\b([A-Z]{4,})\b", cell) for word in word if word]


@pytest.mark.parametrize("name", generate.pages())
def test_the_generated_reference_is_up_to_date(name: str) -> None:
    written, made = (generate.FOLDER / name).read_text(), generate.pages()[name]
    changed = "\n".join(difflib.unified_diff(written.splitlines(), made.splitlines(), lineterm="", n=0))
    assert not changed, f"run `python -m docs.generate`:\n{changed}"


GUIDES = [*ROOT.glob("docs/guides/*.md"), ROOT / "docs" / "inside-git.md"]
CONSOLE = re.compile(r"(?:^<!-- (tested|not run): .+? -->\n)?^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_a_block_of_a_guide_is_run_or_says_why_not(page: Path) -> None:
    for mark, text in CONSOLE.findall(page.read_text()):
        assert mark, f"neither tested nor `not run: <reason>`:\n{text}"


def complaint(line: str, variables: str) -> str | None:
    """What is wrong with a line that calls one of our commands: a command or option that there isn't."""
    words = shlex.split(line, comments=True)
    command: click.Command | None = dstack if words.pop(0) == "dstack" else runner
    try:
        while isinstance(command, click.Group) and not isinstance(command, RunGroup):
            with click.Context(command) as ctx:
                _, words, _ = command.make_parser(ctx).parse_args(words)
                if not words:
                    return None
                _, command, words = command.resolve_command(ctx, words)
        assert command is not None
        if isinstance(command, RunGroup):  # the options of any workflow, and variables by their names
            words = [word for word in words if not is_variable(word, variables)]
            command = click.Command("run", params=run_options())
        with click.Context(command) as ctx:
            command.make_parser(ctx).parse_args(words)
    except click.UsageError as error:
        return f"{line}: {error.format_message()}"
    return None


def is_variable(word: str, variables: str) -> bool:
    """Whether it is the flag of a variable that stands in this text."""
    flag = re.fullmatch(r"--([\w-]+\.)?([\w-]+)(=.*)?", word)
    return flag is not None and re.search(rf"\b{flag[2].replace('-', '_')}:", variables.replace("-", "_")) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_exist_run_or_not(page: Path) -> None:
    text = page.read_text()
    found = re.findall(r"^\$ ((?:dstack|dstack-runner)(?: .*)?)$", text.replace("\\\n", " "), re.MULTILINE)
    variables = text + "".join(path.read_text() for path in ROOT.glob("examples/*/.dstack/*.yaml"))
    lines = [re.split(r"\s[|>&<]|\s2>", line)[0] for line in found]
    assert [wrong for line in lines if (wrong := complaint(line, variables))] == []


def test_a_command_that_there_is_not_is_noticed() -> None:
    assert complaint("dstack status --watch fast-rabbit-1", "") is None
    assert complaint("dstack run train --lr 0.1 --local", "lr: 1") is None
    assert "--rl" in (complaint("dstack run train --rl 0.1", "lr: 1") or "")
    assert "--wach" in (complaint("dstack status --wach", "") or "")
    assert "stauts" in (complaint("dstack stauts", "") or "")
    assert "--laebl" in (complaint("dstack-runner config --laebl big", "") or "")


def test_the_reference_has_every_key_and_no_other() -> None:
    cells = first_cells("docs/workflows.md", "`.dstack/workflows.yaml`")
    assert cells == list(language.WORKFLOW)


def test_every_shared_setting_is_explained() -> None:
    assert first_cells("docs/git.md", "Shared settings") == list(Settings.__struct_fields__)


def test_every_reason_and_state_is_explained() -> None:
    assert set(first_cells("docs/workflows.md", "Reasons")) == set(Reason)
    assert set(first_cells("docs/commands.md", "`dstack status`")) == set(Status)


def test_every_command_has_its_place() -> None:
    headings = re.findall(r"^## `dstack (\w+)`$", (ROOT / "docs/commands.md").read_text(), re.MULTILINE)
    assert headings == [name for name, listed in COMMANDS.items() if not listed.hidden]


def test_the_examples_of_the_reference_are_right() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/workflows.md").read_text(), re.MULTILINE | re.DOTALL)
    workflows = parse_workflows(blocks[0].encode())
    variables = parse_variables(blocks[1].encode(), workflows)
    assert variables.of("train") == {"seed": "7", "batch-size": "32", "note": "one two  three"}


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
