"""The work tree as it stands, as a commit in our cache. The user's index, work tree, stash and refs are only read."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from dstack.ledger import lfs
from dstack.ledger.cache import Cache
from dstack.ledger.code import CodeRepository, tracked
from dstack.ledger.lfs import LfsObjects
from dstack.ledger.objects import EXECUTABLE, FILE, Objects
from dstack.ledger.remote import Remote
from dstack.ledger.travels import Travels, travels
from dstack.ledger.worktree import Choice, WorkTree, write_work_tree
from dstack.model.errors import Invalid
from dstack.model.runspec import Code

WORKFLOWS = ".dstack/workflows.yaml"
VARIABLES = ".dstack/variables.yaml"
FILE_LIMIT = 1024 * 1024

# So many commits behind HEAD are looked for on the remote: past that, history costs more to send than it is worth.
_DEPTH = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of the snapshot: its blob's full id and bytes."""

    oid: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a run's code is. `tree` is the commit's; `head` the commit it stands on, and itself where nothing changed.

    `warnings` are sentences for the user.
    """

    commit: str
    tree: str
    head: str
    branch: str | None
    url: str | None
    workflows: File
    variables: File | None
    warnings: tuple[str, ...]
    travels: Travels
    lfs: LfsObjects


def take_snapshot(code: CodeRepository, cache: Cache, remote: Remote, choice: Choice) -> Snapshot:
    """Write the work tree into `cache` (which borrows `code.objects`). Raises Invalid, with what to do about it."""
    cache.make_shallow(code.common / "shallow" if code.shallow else None)
    head = cache.objects.commit(code.head)
    found = WorkTree(tree=head.tree) if choice.only_committed else write_work_tree(code, cache.path, choice)
    workflows = file_of(cache.objects, found.tree, WORKFLOWS)
    if workflows is None:
        raise _no_workflows(code)
    whole = not _holds_history(code, cache.objects, remote)
    told = travels(cache.objects, head.tree, found.tree, include=frozenset(found.included), whole=whole)
    unchanged = found.tree == head.tree and not whole
    return Snapshot(
        commit=code.head if unchanged else _commit(cache.objects, code, found.tree, whole=whole),
        tree=found.tree,
        head=code.head,
        branch=code.branch,
        url=code.url,
        workflows=workflows,
        variables=file_of(cache.objects, found.tree, VARIABLES),
        warnings=(*found.warnings, *told.warnings, *_more_warnings(code, cache.objects, found.tree)),
        travels=replace(told, untracked=len(found.untracked)),
        lfs=_lfs(code, cache.objects, remote, found.tree),
    )


def taken_before(code: CodeRepository, found: Objects, recorded: Code, run: str) -> Snapshot:
    """The snapshot of another run, which must be among the objects. Large files of LFS are where it has left them."""
    tree = found.commit(recorded.snapshot).tree
    workflows = file_of(found, tree, WORKFLOWS)
    if workflows is None:
        msg = f"the code of run {run} has no {WORKFLOWS}: it can't be run again"
        raise Invalid(msg)
    return Snapshot(
        commit=recorded.snapshot,
        tree=tree,
        head=recorded.commit,
        branch=recorded.branch,
        url=recorded.url,
        workflows=workflows,
        variables=file_of(found, tree, VARIABLES),
        warnings=(),
        travels=Travels(source=run),
        lfs=LfsObjects(top=code.top),
    )


def file_of(found: Objects, tree: str, path: str) -> File | None:
    """A file of the tree; None where there is none. Raises Invalid where there is something else in its place."""
    folder, _, name = path.encode().partition(b"/")
    entry = found.tree(tree).get(folder)
    entry = found.tree(entry.oid).get(name) if entry and entry.folder else None
    if entry is None:
        return None
    if entry.mode not in (FILE, EXECUTABLE):
        msg = f"{path} is not a plain file: replace the link or folder by one"
        raise Invalid(msg)
    return File(oid=entry.oid, data=found.blob(entry.oid, path, limit=FILE_LIMIT))


def _commit(found: Objects, code: CodeRepository, tree: str, *, whole: bool) -> str:
    """On top of HEAD; without it where the remote knows nothing of it, lest all of history travels."""
    message = f"The work tree at {code.head[:12]} [skip ci]"
    if whole:
        return found.write_commit(tree, [], f"{message}\n\nHead: {code.head}")
    return found.write_commit(tree, [code.head], message)


def _holds_history(code: CodeRepository, found: Objects, remote: Remote) -> bool:
    """Whether the remote has HEAD, or (of a clone that isn't shallow) a commit not far behind it."""
    if remote.path == code.common.resolve():
        return True
    history = found.history(code.head, 1 if code.shallow else _DEPTH)
    if remote.objects is not None:
        return found.any_of(history, remote.objects)
    # Of a remote elsewhere it is known by what was last fetched from there, or pushed.
    known = tracked(code, remote.name)
    return bool(known) and any(oid in known for oid in history)


def _no_workflows(code: CodeRepository) -> Invalid:
    if (code.top / WORKFLOWS).is_file():
        return Invalid(f"{WORKFLOWS} is there, but ignored or not committed, so it would not travel: `git add -f` it")
    return Invalid(f"there is no {WORKFLOWS} in {code.top}: write one, or let `dstack init` make a sample")


def _more_warnings(code: CodeRepository, found: Objects, tree: str) -> list[str]:
    warnings: list[str] = []
    if code.merging:
        warnings.append("a merge or rebase is in progress: files with conflicts travel as they stand, markers and all")
    if b".gitmodules" in found.tree(tree):
        warnings.append("submodules don't travel: their folders are empty where the run is executed")
    return warnings


def _lfs(code: CodeRepository, found: Objects, remote: Remote, tree: str) -> LfsObjects:
    if not lfs.is_set_up(code.settings) or not lfs.uses_lfs(code.context):
        return LfsObjects(top=code.top)
    return LfsObjects(top=code.top, digests=_to_bring(lfs.pointers(found, tree), remote))


def _to_bring(digests: Iterable[str], remote: Remote) -> tuple[str, ...]:
    """The large files that the remote may lack; git-lfs asks a server itself, and brings what is missing."""
    return lfs.missing(digests, remote.path) if remote.path else tuple(sorted(set(digests)))
