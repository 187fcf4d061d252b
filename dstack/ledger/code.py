"""The user's own repository: where it is, what it stands at, and which remote holds the state. It is only read here."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dstack.ledger import git
from dstack.ledger.access import Pairs, is_reaching
from dstack.ledger.address import without_credentials
from dstack.ledger.git import Context
from dstack.ledger.remote import Remote, choose_remote
from dstack.model.errors import Failed, Invalid

_BRANCH = "refs/heads/"
_QUESTIONS = (
    "--path-format=absolute",
    "--is-shallow-repository",
    "--show-object-format",
    "--show-toplevel",
    "--git-dir",
    "--git-common-dir",
    "--git-path",
    "objects",
    "--git-path",
    "index",
)
# As many lines as the questions and the two about HEAD have answers.
_ANSWERS = 9
# git's own words, in which it names the folder to be trusted (git/setup.c, die_upon_dubious_ownership).
_OWNED = re.compile(r"dubious ownership in repository at '(.+)'")
_SETTINGS = (
    r"^(dstack|remote|user|url|filter\.lfs|credential|http|ssh|protocol|gpg)\.|^commit\.gpgsign$"
    r"|^core\.(sshcommand|askpass|gitproxy)$"
)
# Scopes whose settings a git in a folder of ours doesn't read by itself.
_OWN = frozenset({"local", "worktree"})

Settings = list[tuple[str, str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRepository:
    """A work tree of the user. `top` is its root, `common` the git folder all its work trees share.

    `head` is the full id of the commit checked out, `branch` its branch (None when detached). `url` is where the code's
    own remote is, for people. `reaching`: this repository's own settings on how to reach a remote.
    """

    top: Path
    git_dir: Path
    common: Path
    objects: Path
    index: Path
    head: str
    branch: str | None
    shallow: bool
    settings: Mapping[str, str] = field(default_factory=dict)
    reaching: Pairs = field(default=(), repr=False)

    @property
    def url(self) -> str | None:
        """The address of `origin`, if there is one, without credentials: it goes into the record of every run."""
        address = self.settings.get("remote.origin.url")
        return None if address is None else without_credentials(address)

    @property
    def context(self) -> Context:
        """For git commands in this work tree."""
        return Context(folder=self.top)

    @property
    def merging(self) -> bool:
        """Whether a merge, rebase, cherry-pick or revert is in progress."""
        names = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply")
        return any((self.git_dir / name).exists() for name in names)

    def remote(self) -> Remote:
        """The state remote. Raises Invalid where it is set to what doesn't exist or isn't supported."""
        return choose_remote(self.settings, self.top, self.common, self.reaching)


def find_code(folder: Path) -> CodeRepository:
    """The repository around `folder`. Raises Invalid where there is none, or one that can't be submitted from."""
    context = Context(folder=folder)
    with (
        git.start(context, "rev-parse", *_QUESTIONS, "HEAD", "--symbolic-full-name", "HEAD") as places,
        git.start(context, "config", "--null", "--show-scope", "--get-regexp", _SETTINGS) as settings,
    ):
        found, answer = settings.result(), places.result()
    return _from_answer(answer, folder, _settings(found.out))


def tracked(code: CodeRepository, remote: str) -> frozenset[str]:
    """The ids of the commits that a named remote is known to have had at its branches. Raises Failed."""
    if f"remote.{remote}.url" not in code.settings:
        return frozenset()
    found = git.output(code.context, "for-each-ref", "--format=%(objectname)", f"refs/remotes/{remote}/")
    return frozenset(found.decode().split())


def _from_answer(answer: git.Result, folder: Path, settings: Settings) -> CodeRepository:
    lines = answer.out.decode(errors="surrogateescape").splitlines()
    folder = _absolute(folder)
    if answer.status != 0:
        raise _explain(answer, lines, folder)
    if len(lines) != _ANSWERS:
        msg = f"the path of the repository at {folder} has a line break in it: move it to a folder without one"
        raise Invalid(msg)
    shallow, algorithm, top, git_dir, common, objects, index, head, branch = lines
    if algorithm != "sha1":
        msg = f"{top} is a {algorithm} repository: dstack works with SHA-1 repositories only, so far"
        raise Invalid(msg)
    _check_branch_namespace(Path(common))
    return CodeRepository(
        top=Path(top),
        git_dir=Path(git_dir),
        common=Path(common),
        objects=Path(objects),
        index=Path(index),
        head=head,
        branch=branch.removeprefix(_BRANCH) if branch.startswith(_BRANCH) else None,
        shallow=shallow == "true",
        settings={name: value for _, name, value in settings},
        reaching=tuple((name, value) for scope, name, value in settings if scope in _OWN and is_reaching(name)),
    )


def _absolute(folder: Path) -> Path:
    """As messages name it: `.` would tell nobody where the command was started."""
    try:
        return folder.absolute()
    except OSError as error:
        msg = "the folder that this was started in has been deleted: go to one that is there"
        raise Failed(msg) from error


def _explain(answer: git.Result, lines: list[str], folder: Path) -> Invalid | Failed:
    """The refusal of git in words that say what to do."""
    text = answer.err.decode(errors="replace")
    if "dubious ownership" in text:
        owned = _OWNED.search(text)
        place = owned[1] if owned else str(folder)
        trust = f"git config --global --add safe.directory {shlex.quote(place)}"
        return Failed(f"{place} belongs to another user: if you trust it, run `{trust}`")
    if "must be run in a work tree" in text or "bare repository" in text:
        return Invalid(f"{folder} is a bare repository, without files: run dstack in a clone of it")
    if "not a git repository" in text:
        return Invalid(f"{folder} is not in a git repository: run `git init`, or go to your repository (-C DIR)")
    if lines[-1:] == ["HEAD"] or "ambiguous argument 'HEAD'" in text:
        return Invalid(f"the repository at {folder} has no commit yet: make one (git commit --allow-empty -m start)")
    return Failed(f"git can't read the repository at {folder}: {answer.reason}")


def _settings(out: bytes) -> Settings:
    """What `git config --null --show-scope` prints: scope, name, value. Of a name given twice the last counts."""
    texts = out.decode(errors="surrogateescape").split("\0")
    entries = ((scope, *entry.partition("\n")) for scope, entry in zip(texts[::2], texts[1::2], strict=False))
    return [(scope, name, value) for scope, name, _, value in entries]


def _check_branch_namespace(common: Path) -> None:
    """A branch `dstack` leaves no room for the branches `dstack/…`, which git stores below it."""
    packed = common / "packed-refs"
    lines = packed.read_bytes().splitlines() if packed.is_file() else []
    if (common / "refs/heads/dstack").is_file() or any(line.endswith(b" refs/heads/dstack") for line in lines):
        msg = (
            "this repository has a branch called `dstack`, which leaves no room for the branches dstack/… that dstack "
            "makes: rename it (git branch -m dstack NEW-NAME)"
        )
        raise Invalid(msg)
