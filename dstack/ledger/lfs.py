"""Git LFS: which large files a tree only points at, and bringing them to the remote that is to hold the tree."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dstack.ledger import git, refusals
from dstack.ledger.git import Context
from dstack.ledger.objects import EXECUTABLE, FILE, Objects
from dstack.model.errors import Failed, Unavailable

# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md: a pointer has less than 1,024 bytes.
_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\n(?:.*\n)*?oid sha256:([0-9a-f]{64})\nsize ")
_POINTER_LIMIT = 1024
_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class LfsObjects:
    """Large files (SHA-256 digests) that a snapshot points at, and the work tree whose LFS store has them."""

    top: Path
    digests: tuple[str, ...] = ()


def is_set_up(settings: Mapping[str, str]) -> bool:
    """Whether git's settings have the LFS filter; without it files go as they are."""
    return "filter.lfs.process" in settings or "filter.lfs.clean" in settings


def uses_lfs(context: Context) -> bool:
    """Whether any .gitattributes in the index hands files to LFS."""
    found = git.run(context, "grep", "--cached", "-q", "-F", "filter=lfs", "--", ".gitattributes", "**/.gitattributes")
    return found.status == 0


def pointers(objects: Objects, tree: str) -> Iterator[str]:
    """The digests of all large files that a tree points at."""
    for entry in objects.tree(tree).values():
        if entry.folder:
            yield from pointers(objects, entry.oid)
        elif entry.mode in (EXECUTABLE, FILE) and objects.size(entry.oid) < _POINTER_LIMIT:
            match = _POINTER.match(objects.blob(entry.oid, "LFS pointer", limit=_POINTER_LIMIT))
            if match:
                yield match[1].decode()


def missing(digests: Iterable[str], git_dir: Path) -> tuple[str, ...]:
    """Those that the LFS store of a repository on this machine lacks."""
    store = git_dir / "lfs/objects"
    return tuple(sorted({one for one in digests if not (store / one[:2] / one[2:4] / one).is_file()}))


def push(found: LfsObjects, url: str, environment: Mapping[str, str]) -> None:
    """Bring the large files to the remote at `url` (or an absolute path). Raises Failed, Unavailable."""
    # git-lfs knows a repository on this machine by its URL only, not by its path.
    url = Path(url).as_uri() if Path(url).is_absolute() else url
    context = Context(folder=found.top, environment=environment, timeout=3600)
    for at in range(0, len(found.digests), _BATCH):
        batch = found.digests[at : at + _BATCH]
        result = git.run(context, "lfs", "push", "--object-id", url, *batch)
        if result.status != 0:
            raise _refused(result, url)


def _refused(result: git.Result, url: str) -> Failed | Unavailable:
    text = result.err.decode(errors="replace")
    what = f"git LFS can't bring the large files to {url}"
    if "locking" in text and "not found" in text.lower():
        return Failed(f"{what}: the remote has no LFS: use one that has, or keep those files out by .dstackignore")
    known = None if url.startswith("file:") else refusals.explain(text, what, "")
    if isinstance(known, Unavailable):
        return known
    said = refusals.unlogged(result.reason)
    return Failed(f"{what}: {said}: try `git lfs pull` first, or use a remote that takes LFS")
