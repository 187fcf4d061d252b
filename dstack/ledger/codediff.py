"""Snapshots of other runs, fetched where they are missing, and what differs between two of them, by git itself."""

from dataclasses import dataclass, replace

from dstack.ledger import git, refusals
from dstack.ledger.cache import Cache
from dstack.ledger.code import CodeRepository
from dstack.ledger.objects import Damaged
from dstack.model import refs
from dstack.model.errors import Failed, Unavailable
from dstack.model.refs import RunKey

KEPT = "refs/kept"
SECONDS = 1800.0
# What a user's own settings could make git start, or show otherwise.
_PLAIN = ("--no-ext-diff", "--no-textconv", "--no-color", "--submodule=short", "--src-prefix=a/", "--dst-prefix=b/")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """Lines added and deleted; None for both of a binary file."""

    file: str
    added: int | None
    deleted: int | None


def bring(cache: Cache, code: CodeRepository, key: RunKey, snapshot: str, *, archived: bool = False) -> None:
    """Have the snapshot of a run in the cache, with its history; of an archived one it is fetched by its id.

    Raises Failed where it is gone, Unavailable.
    """
    if _is_here(cache, snapshot):
        return
    cache.make_shallow(code.common / "shallow" if code.shallow else None)
    # What the user's repository has needn't come: our cache borrows from there.
    known = [f"--negotiation-tip={code.head}"] if cache.objects.has(code.head) else []
    options = ("--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--quiet")
    kept = f"{KEPT}/{snapshot}"
    context = replace(cache.context, timeout=SECONDS)
    what = snapshot if archived else refs.snapshot(key)
    result = git.run(context, "fetch", *options, *known, "--", cache.url, f"+{what}:{kept}")
    if result.status != 0:
        raise _explained(result, key, cache.url)
    if not _is_here(cache, snapshot):
        msg = f"the code of run {key.name} was replaced: its snapshot ref names another commit than the run does"
        raise Failed(msg)


def stat(cache: Cache, old: str, new: str, columns: int) -> str:
    """A line a file, as `git diff --stat`; empty where nothing differs. `old`, `new`: commits or trees."""
    return _diff(cache, f"--stat={columns}", old, new).decode(errors="replace").rstrip("\n")


def patch(cache: Cache, old: str, new: str) -> str:
    """As `git diff`."""
    return _diff(cache, "--patch", old, new).decode(errors="backslashreplace").rstrip("\n")


def changes(cache: Cache, old: str, new: str) -> tuple[FileChange, ...]:
    """All files that differ; a renamed one counts as two."""
    texts = _diff(cache, "--numstat", "-z", "--no-renames", old, new).decode(errors="backslashreplace").split("\0")
    parts = [text.split("\t", 2) for text in texts if text]
    return tuple(FileChange(file=path, added=_count(added), deleted=_count(gone)) for added, gone, path in parts)


def _count(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _diff(cache: Cache, *args: str) -> bytes:
    return git.output(replace(cache.context, prompt=False), "diff", *_PLAIN, *args, "--")


def _is_here(cache: Cache, snapshot: str) -> bool:
    try:
        return cache.objects.has(snapshot) and cache.objects.has(cache.objects.commit(snapshot).tree)
    except Damaged:
        return False


def _explained(result: git.Result, key: RunKey, url: str) -> Failed | Unavailable:
    text = result.err.decode(errors="replace")
    what = f"the code of run {key.name}"
    if "couldn't find remote ref" in text:
        return Failed(f"{what} is not on the state remote any more: its run was archived, or forgotten")
    known = None if url.startswith("/") else refusals.explain(text, what, "can't be fetched")
    return known or Unavailable(f"{what} can't be fetched: {refusals.unlogged(result.reason)}")
