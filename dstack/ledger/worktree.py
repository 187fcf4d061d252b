"""Writing the user's work tree as a tree object of our cache, through a copy of the index: by git, so filters apply."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dstack.ledger import git, untracked
from dstack.ledger.code import CodeRepository
from dstack.ledger.git import Context
from dstack.model.errors import Invalid

IGNORE_FILE = ".dstackignore"
_IGNORE_LIMIT = 64 * 1024
_TIMEOUT = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the user wants of the work tree. `include`: paths or globs that travel whatever speaks against it."""

    only_committed: bool = False
    untracked: bool = True
    include: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkTree:
    """A tree's full id, the untracked files in it, those asked for by name, and sentences about those left out."""

    tree: str
    untracked: tuple[bytes, ...] = ()
    included: tuple[bytes, ...] = ()
    warnings: tuple[str, ...] = ()


def write_work_tree(code: CodeRepository, cache: Path, choice: Choice) -> WorkTree:
    """The work tree as it stands, its new objects in the cache at `cache`. Raises Invalid where it must not travel."""
    with _index_copy(code, cache) as context:
        with git.start(context, "add", "--update", "--", ":/") as update:
            names = _included(code, choice.include)
            chosen = untracked.choose(code, _listed(code, choice), frozenset(names))
            result = update.result()
        _check_added(result)
        if chosen.names:
            text = b"".join(name + b"\0" for name in chosen.names)
            _check_added(git.run(context, "update-index", "--add", "-z", "--stdin", stdin=text))
        tree = git.output(context, "write-tree").decode().strip()
    return WorkTree(tree=tree, untracked=chosen.names, included=tuple(names), warnings=chosen.warnings)


@contextmanager
def _index_copy(code: CodeRepository, cache: Path) -> Iterator[Context]:
    """A context in which git works on a copy of the user's index and writes objects into the cache."""
    with tempfile.TemporaryDirectory(prefix="index-", dir=cache) as folder:
        index = Path(folder) / "index"
        if code.index.is_file():
            shutil.copy2(code.index, index)
        places = {
            "GIT_INDEX_FILE": str(index),
            "GIT_OBJECT_DIRECTORY": str(cache / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": _quoted(code.objects),
        }
        yield Context(folder=code.top, environment=places, timeout=_TIMEOUT)


def _listed(code: CodeRepository, choice: Choice) -> list[bytes]:
    """Untracked files that neither git nor .dstackignore ignores."""
    if not choice.untracked:
        return []
    excludes = [f"--exclude={line}" for line in _ignore_lines(code.top / IGNORE_FILE)]
    out = git.output(code.context, "ls-files", "-z", "--others", "--exclude-standard", *excludes)
    return out.split(b"\0")[:-1]


def _included(code: CodeRepository, include: tuple[str, ...]) -> list[bytes]:
    """Untracked files asked for by name, ignored or not."""
    names: list[bytes] = []
    for pattern in include:
        result = git.run(code.context, "ls-files", "-z", "--others", "--cached", "--", f":(top,glob){pattern}")
        found = result.out.split(b"\0")[:-1]
        if not found:
            msg = f"--include {pattern}: there is no such file in {code.top}"
            raise Invalid(msg)
        names += found
    return names


def _ignore_lines(path: Path) -> list[str]:
    """The patterns of a .dstackignore, which has the syntax of a .gitignore."""
    if not path.is_file():
        return []
    data = path.read_bytes()
    if len(data) > _IGNORE_LIMIT:
        msg = f"{path} has {len(data)} bytes; at most {_IGNORE_LIMIT} are read: use patterns instead of a list of files"
        raise Invalid(msg)
    lines = [os.fsdecode(line).rstrip() for line in data.splitlines()]
    return [line for line in lines if line and not line.startswith("#") and "\0" not in line]


def _check_added(result: git.Result) -> None:
    if result.status != 0:
        msg = f"git can't record the work tree ({result.reason}): mend that, or name the file in {IGNORE_FILE}"
        raise Invalid(msg)


def _quoted(path: Path) -> str:
    """A path for a colon-separated list, as git(1) has it: quoted where it contains a colon or begins with a quote."""
    text = str(path)
    if ":" not in text and not text.startswith('"'):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
