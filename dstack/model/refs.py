"""All ref names: the one place that formats and parses them (DESIGN section 3)."""

import re
from typing import NamedTuple

from dstack.model.errors import Invalid

CONFIG = "refs/heads/dstack/config"
ID = "refs/dstack/id"
SEEN = "refs/dstack/seen"
ARCHIVE = "refs/dstack/archive"
CONTROLLER = "controller"

_RUNS = "refs/heads/dstack/runs/"
_SNAPSHOTS = "refs/dstack/snapshots/"
_NOTES = "refs/notes/dstack/"
_ASSIGNMENTS = "refs/dstack/assignments/"
_RUNNERS = "refs/dstack/runners/"
_TAGS = "refs/tags/dstack/"

# What one poll fetches. `id*` and `seen*` are patterns because a plain name that is absent fails the whole fetch.
POLLED = tuple(
    f"+{pattern}:{pattern}"
    for pattern in (
        "refs/heads/dstack/*",
        "refs/notes/dstack/*",
        "refs/dstack/assignments/*",
        "refs/dstack/runners/*",
        "refs/dstack/id*",
        "refs/dstack/seen*",
        "refs/tags/dstack/*",
    )
)

_TAG = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_HEX12 = re.compile(r"[0-9a-f]{12}")


class RunKey(NamedTuple):
    """A run's name and the first 12 digits of its root: unique for ever, where a name can be used again."""

    name: str
    root12: str

    def __str__(self) -> str:
        """As in refs and store keys: `fast-rabbit-1.5ab98f2089ae`."""
        return f"{self.name}.{self.root12}"

    @classmethod
    def of(cls, name: str, root: str) -> "RunKey":
        """The key of the run `name` whose first commit is `root` (a full id)."""
        return cls(name, root[:12])

    @classmethod
    def from_text(cls, text: str) -> "RunKey":
        """Inverse of `str`. Raises Invalid."""
        name, dot, root12 = text.rpartition(".")
        if not dot or not is_name(name) or not _HEX12.fullmatch(root12):
            msg = f"{text!r} is not a run's name followed by 12 hex digits"
            raise Invalid(msg)
        return cls(name, root12)


def is_name(text: str) -> bool:
    """Whether `text` can name a run or a runner."""
    return bool(_NAME.fullmatch(text)) and "--" not in text


def check_name(text: str, what: str) -> str:
    """`text` itself if it can name `what` (a run, a runner); else raises Invalid."""
    if is_name(text) and not (what == "runner" and text == CONTROLLER):
        return text
    rule = "use 1 to 63 of a-z, 0-9 and single dashes, starting and ending with a letter or digit"
    msg = f"{text!r} can't name a {what}: {rule}"
    if text == CONTROLLER:
        msg = f"a {what} can't be called {CONTROLLER!r}"
    raise Invalid(msg)


def is_tag(text: str) -> bool:
    """Whether `text` can be a tag: a part of a ref's name on every file system (git-check-ref-format(1))."""
    return bool(_TAG.fullmatch(text)) and ".." not in text and not text.endswith(".lock")


def check_tag(text: str) -> str:
    """`text` itself if it can be a tag; else raises Invalid."""
    if is_tag(text):
        return text
    rule = "use 1 to 63 letters, digits, dots, dashes and underscores, beginning and ending with a letter or digit"
    msg = f"{text[:100]!r} can't be a tag: {rule}"
    raise Invalid(msg)


def run_branch(name: str) -> str:
    """The branch that holds what is wanted of a run."""
    return _RUNS + name


def snapshot(key: RunKey) -> str:
    """The ref that keeps the code of a run alive."""
    return f"{_SNAPSHOTS}{key}"


def note(key: RunKey, writer: str) -> str:
    """The notes of one writer (a runner's name, or `controller`) about a run."""
    return f"{_NOTES}{key}/{writer}"


def assignment(runner: str) -> str:
    """The attempts a runner should hold."""
    return _ASSIGNMENTS + runner


def runner(name: str) -> str:
    """A runner's registration."""
    return _RUNNERS + name


def tag(name: str) -> str:
    """A name given to a run by a user."""
    return _TAGS + name


def parse_run_branch(ref: str) -> str | None:
    """The run's name, or None where `ref` is no run branch."""
    name = ref.removeprefix(_RUNS)
    return name if name != ref and is_name(name) else None


def parse_tag(ref: str) -> str | None:
    """The tag, or None where `ref` is no tag of ours."""
    name = ref.removeprefix(_TAGS)
    return name if name != ref and is_tag(name) else None


def parse_note(ref: str) -> tuple[RunKey, str] | None:
    """The run and the writer, or None where `ref` is no note ref of ours."""
    key, slash, writer = ref.removeprefix(_NOTES).partition("/")
    if not ref.startswith(_NOTES) or not slash or not is_name(writer):
        return None
    try:
        return RunKey.from_text(key), writer
    except Invalid:
        return None


def parse_assignment(ref: str) -> str | None:
    """The runner's name, or None."""
    name = ref.removeprefix(_ASSIGNMENTS)
    return name if name != ref and is_name(name) else None


def parse_runner(ref: str) -> str | None:
    """The runner's name, or None."""
    name = ref.removeprefix(_RUNNERS)
    return name if name != ref and is_name(name) else None
