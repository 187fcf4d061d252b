"""The code remote as triggers look at it: where its branches and tags are, and what commits say. Files stay there.

On this machine its refs are read from files and its objects where they are. Elsewhere they are fetched into a
repository apart, without the content of files where that can be left out (DESIGN section 9).
"""

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dstack.ledger import folder, git, refusals
from dstack.ledger.git import Context
from dstack.ledger.localrefs import LocalRefs
from dstack.ledger.objects import Damaged, Objects
from dstack.ledger.remote import Remote
from dstack.model.errors import Failed, Invalid, Unavailable
from dstack.model.firing import Diff, Tips

HEADS, TAGS = "refs/heads/", "refs/tags/"
PULLS = ("refs/pull/", "refs/merge-requests/")
# More paths than these count as all.
MOST_PATHS = 20_000
SECONDS = 600.0
# How long it is believed which branch is the default one.
DEFAULT_SECONDS = 300.0

_OURS = ("refs/heads/dstack/", "refs/tags/dstack/")
_PATTERNS = (f"+{HEADS}*:{HEADS}*", f"+{TAGS}*:{TAGS}*")
_PULL_PATTERNS = tuple(f"+{one}*/head:{one}*/head" for one in PULLS)
_WITHOUT = ("^refs/heads/dstack/*", "^refs/tags/dstack/*")
_FETCH = ("fetch", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--quiet", "--prune")
_FORMAT = "%(objecttype) %(objectname) %(*objecttype) %(*objectname) %(refname)"
_SYMREF = re.compile(rb"^ref: refs/heads/(\S+)\s+HEAD$", re.MULTILINE)
_OID = re.compile(r"[0-9a-f]{40}")
_REMOTE = "code"


@dataclass(frozen=True, slots=True)
class _Default:
    branch: str | None
    at: float


def make_lender(path: Path) -> Path:
    """The folder of objects of the cache that is to be at `path`, for others to borrow from before anything is in it.

    libgit2 never finds packs in a folder that had no `pack` when it was opened (odb_pack.c, git_odb_backend_pack).
    """
    objects = path / "objects"
    (objects / "pack").mkdir(parents=True, exist_ok=True)
    return objects


class CodeCache:
    """For one thread at a time."""

    def __init__(self, path: Path, remote: Remote, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`path`: a folder of our own, for what is fetched."""
        self.remote = remote
        self._path = path
        self._clock = clock
        self._default = _Default(None, float("-inf"))
        self._local = None
        if remote.path:
            self._local = LocalRefs(remote.path, (*_PATTERNS, *(f"+{one}*:{one}*" for one in PULLS)))
        self._peeled: dict[str, str | None] = {}
        self._objects: Objects | None = None

    @property
    def objects_folder(self) -> Path:
        """Where its objects are, for another repository to borrow."""
        return self.remote.objects or self._path / "objects"

    @property
    def _context(self) -> Context:
        place = self.remote.path or self._path
        return replace(self.remote.context(place), timeout=SECONDS)

    def tips(self, *, pulls: bool) -> Tips:
        """Where everything is now; `pulls`: heads of pull requests too. Raises Unavailable, Failed."""
        found = self._read_local() if self._local else self._fetched(pulls=pulls)
        wanted = (HEADS, TAGS, *(PULLS if pulls else ()))
        refs = {ref: oid for ref, oid in found.items() if ref.startswith(wanted) and not ref.startswith(_OURS)}
        return Tips(refs=refs, default=self._default_branch(refs))

    def bring(self, commits: Iterable[str], paths: Iterable[str]) -> None:
        """Have these files of these commits here, where they are there at all. Raises Unavailable, Failed."""
        if self._local:
            return
        wanted = "".join(f"{commit}:{path}\n" for commit in commits for path in paths)
        if wanted:
            # Asked for its size, git fetches what it left out.
            done = git.run(self._context, "cat-file", "--batch-check", stdin=wanted.encode())
            if done.status != 0:
                raise self._unreachable(done)

    def bring_whole(self, commit: str, *, alone: bool) -> None:
        """Have all files here, to be pushed: of the commit `alone`, else of all those that no branch contains.

        A pull request's ref may be hidden from who pushes. Raises Unavailable, Failed.
        """
        if self._local:
            return
        which = ("--no-walk", commit) if alone else (commit, "--not", "--branches")
        listed = (
            git.output(self._context, "rev-list", "--objects", "--missing=print", *which)
            .decode(errors="surrogateescape")
            .splitlines()
        )
        missing = [line[1:] for line in listed if line.startswith("?")]
        if missing:
            # As git itself fetches what it left out (git/promisor-remote.c, fetch_objects), but all at once.
            options = ("-c", "fetch.negotiationAlgorithm=noop", *_FETCH[:-1], "--filter=blob:none", "--stdin", _REMOTE)
            done = git.run(self._context, *options, stdin="".join(f"{oid}\n" for oid in missing).encode())
            if done.status != 0:
                raise self._unreachable(done)

    def changed(self, diff: Diff) -> frozenset[str] | None:
        """The paths that differ; None where that can't be told, or they are too many. Raises Unavailable, Failed."""
        before = self._merge_base(diff) if diff.forked else diff.before
        if before is None:
            return None
        done = git.run(
            self._context, "diff-tree", "-r", "-z", "--name-only", "--no-renames", "--no-ext-diff", before, diff.after
        )
        names = done.out.split(b"\0")[:-1]
        if done.status != 0 or len(names) > MOST_PATHS:
            return None
        return frozenset(name.decode(errors="surrogateescape") for name in names)

    def reached(self, commits: Collection[str]) -> frozenset[str]:
        """Those that a branch of the remote contains; where it can't be told, none. Raises Unavailable, Failed."""
        lines = "".join(f"{commit}\n" for commit in commits).encode()
        unreached = ("rev-list", "--stdin", "--not", f"--exclude={_OURS[0].removeprefix(HEADS)}*", "--branches")
        done = git.run(self._context, *unreached, stdin=lines)
        if done.status != 0:
            return frozenset()
        return frozenset(commits) - frozenset(done.out.decode().splitlines())

    def _merge_base(self, diff: Diff) -> str | None:
        done = git.run(self._context, "merge-base", diff.before, diff.after)
        found = done.out.decode(errors="replace").strip()
        return found if done.status == 0 and _OID.fullmatch(found) else None

    def _read_local(self) -> Mapping[str, str]:
        read = self._local.read() if self._local else None
        if read is None:
            return self._listed()
        commits = self._commits(read)
        return {ref: oid for ref, oid in commits.items() if oid}

    def _commits(self, refs: Mapping[str, str]) -> dict[str, str]:
        """Tags peeled; what names no commit is left out."""
        known = {oid: self._peeled.get(oid, "?") for oid in refs.values()}
        for oid, peeled in known.items():
            if peeled == "?":
                known[oid] = self._commit_at(oid)
        self._peeled = {oid: peeled for oid, peeled in known.items() if peeled != "?"}
        return {ref: commit for ref, oid in refs.items() if (commit := known[oid])}

    def _commit_at(self, oid: str) -> str | None:
        try:
            if self._objects is None:
                self._objects = Objects.open(self.remote.path or self._path)
            commit = self._objects.peeled(oid)
            self._objects.commit(commit)
        except (Invalid, Damaged):
            return None
        return commit

    def _fetched(self, *, pulls: bool) -> Mapping[str, str]:
        self._make()
        patterns = (*_PATTERNS, *(_PULL_PATTERNS if pulls else ()), *_WITHOUT)
        with folder.lock(self._path):
            done = git.run(self._context, *_FETCH, "--filter=blob:none", _REMOTE, *patterns)
        if done.status != 0:
            raise self._unreachable(done)
        return self._listed()

    def _listed(self) -> dict[str, str]:
        done = git.run(self._context, "for-each-ref", f"--format={_FORMAT}", HEADS, TAGS, *PULLS)
        if done.status != 0:
            raise self._unreachable(done)
        found: dict[str, str] = {}
        for line in done.out.decode(errors="surrogateescape").splitlines():
            kind, oid, inner_kind, inner, ref = line.split(" ", 4)
            if kind == "commit" or inner_kind == "commit":
                found[ref] = oid if kind == "commit" else inner
        return found

    def _default_branch(self, refs: Mapping[str, str]) -> str | None:
        if self.remote.path:
            try:
                text = (self.remote.path / "HEAD").read_text(errors="surrogateescape")
            except OSError:
                return None
            return text.strip().removeprefix(f"ref: {HEADS}") if text.startswith(f"ref: {HEADS}") else None
        known, now = self._default, self._clock()
        if now - known.at > DEFAULT_SECONDS or f"{HEADS}{known.branch}" not in refs:
            done = git.run(self._context, "ls-remote", "--symref", _REMOTE, "HEAD")
            if done.status != 0:
                raise self._unreachable(done)
            found = _SYMREF.search(done.out)
            self._default = _Default(found[1].decode(errors="surrogateescape") if found else None, now)
        return self._default.branch

    def _make(self) -> None:
        """The repository that is fetched into, told where from. The address holds no credentials."""
        if not (self._path / "HEAD").is_file():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            git.output(Context(folder=self._path.parent), "init", "--quiet", "--bare", str(self._path))
        settings = {
            f"remote.{_REMOTE}.url": self.remote.url,
            "core.repositoryformatversion": "1",
            "extensions.partialClone": _REMOTE,
            f"remote.{_REMOTE}.promisor": "true",
            f"remote.{_REMOTE}.partialclonefilter": "blob:none",
        }
        if settings != getattr(self, "_set", None):
            for name, value in settings.items():
                git.output(Context(folder=self._path), "config", name, value)
            self._set = settings

    def _unreachable(self, done: git.Result) -> Unavailable | Failed:
        text, url = done.err.decode(errors="replace"), self.remote.url
        known = None if self.remote.path else refusals.explain(text, f"the code remote {url}", "can't be read")
        return known or Unavailable(f"the code remote {url} can't be read: {refusals.unlogged(done.reason)}")
