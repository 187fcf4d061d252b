"""The kept bare cache of code: each snapshot is fetched once, at depth 1, and is the very commit that was named."""

import fcntl
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from dstack.ledger import folder, git, refusals
from dstack.ledger.narrowing import write_narrowed
from dstack.ledger.objects import Objects
from dstack.model import refs
from dstack.model.errors import Unavailable
from dstack.model.job import Reason
from dstack.model.refs import RunKey
from runner import processes
from runner.executor import StartFailed

KEPT = "refs/kept"
KEEP = 64
KILL_SECONDS = 5.0
FETCH_SECONDS = 1800.0
# What a killed git leaves behind. Under our lock nobody else can be using these.
STALE = ("*.lock", "refs/kept/*.lock", "objects/pack/tmp_*", "objects/tmp_objdir-*")
COLLECT = ("gc.auto=6700", "gc.autoPackLimit=40", "gc.autoDetach=false", "gc.packRefs=false", "gc.pruneExpire=now")


class CodeCache:
    """A bare repository of our own, disposable at any time. `remote_url`: the state remote; `access`: how."""

    def __init__(self, path: Path, remote_url: str, access: Mapping[str, str] | None = None) -> None:
        """End the gits of a runner that died, which may be writing here still. Nothing is made before a fetch."""
        self.path, self.url, self._access = path, remote_url, dict(access or {})
        self._lock = threading.Lock()
        processes.kill_marked(f"GIT_DIR={path}".encode(), KILL_SECONDS)
        folder.remove_leftovers(path)

    def fetch(self, key: RunKey, snapshot: str) -> None:
        """Have the snapshot (a full id) here, whole. Raises StartFailed; Unavailable while the remote is away."""
        if self._has(snapshot):
            return
        with self._alone():
            if self._has(snapshot):
                return
            self._make()
            self._drop_old()
            if self._get(key, snapshot).status != 0 and self._is_damaged():
                self._forget()
                self._make()
            self._check(key, snapshot, self._get(key, snapshot))

    def treeish(self, snapshot: str, include: tuple[str, ...]) -> str:
        """What is to be checked out: the snapshot, or of it only what these globs name, as a tree that is then here.

        Raises Invalid, Failed, Damaged.
        """
        if not include:
            return snapshot
        objects = Objects.open(self.path)
        return write_narrowed(objects, objects.commit(snapshot).tree, include)

    def discard(self) -> None:
        """Forget everything: a checkout found the cache damaged."""
        with self._alone():
            self._forget()

    def context(self, environment: Mapping[str, str] | None = None) -> git.Context:
        """Where git commands on the cache run."""
        own = {**self._access, "GIT_DIR": str(self.path), **(environment or {})}
        return git.Context(folder=self.path, environment=own, timeout=FETCH_SECONDS)

    def _has(self, snapshot: str) -> bool:
        """Whether it came whole: its ref is written last, and never packed."""
        try:
            return (self.path / KEPT / snapshot).read_text().strip() == snapshot
        except (OSError, UnicodeDecodeError):
            return False

    def _get(self, key: RunKey, snapshot: str) -> git.Result:
        if self._has(snapshot):
            return git.Result(status=0, out=b"", err=b"")
        what = f"+{refs.snapshot(key)}:{KEPT}/{snapshot}"
        options = ("--depth=1", "--no-tags", "--no-write-fetch-head", "--quiet")
        return git.run(self.context(), "fetch", *options, "--", self.url, what)

    def _check(self, key: RunKey, snapshot: str, result: git.Result) -> None:
        if self._has(snapshot):
            return
        ref = self.path / KEPT / snapshot
        if result.status == 0 and ref.is_file():
            other = ref.read_text().strip()
            ref.unlink()
            msg = f"the code of run {key.name} was replaced: the remote has {other[:12]}, assigned is {snapshot[:12]}"
            raise StartFailed(Reason.CHECKOUT, msg)
        if b"couldn't find remote ref" in result.err:
            msg = f"the code of run {key.name} is not on the remote (any more): submit the run again"
            raise StartFailed(Reason.CHECKOUT, msg)
        # What only a person can mend is waited for too: they may, and the run needn't be lost by it.
        what, text = f"the code of run {key.name}", result.err.decode(errors="replace")
        known = None if self.url.startswith("/") else refusals.explain(text, what, "can't be fetched")
        msg = str(known) if known else f"{what} can't be fetched: {refusals.unlogged(result.reason)}"
        away = isinstance(known, Unavailable) and known.away
        raise Unavailable(msg, retry_after=refusals.retry_after(text), away=away)

    def _make(self) -> None:
        if (self.path / "whole").exists():
            self._tidy()
            return
        # A git of a runner that died, not yet begun when we looked for them, may still be writing where it was.
        with folder.made_anew(self.path) as fresh:
            there = git.Context(folder=fresh, environment={"GIT_DIR": str(fresh)}, timeout=FETCH_SECONDS)
            git.output(there, "init", "--bare", "--quiet", "--template=")
            (fresh / KEPT).mkdir()
            (fresh / "whole").touch()

    def _tidy(self) -> None:
        for pattern in STALE:
            for path in self.path.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _drop_old(self) -> None:
        """Let go of the snapshots not fetched for longest, and of their objects when git finds there are many."""
        kept = sorted((self.path / KEPT).iterdir(), key=lambda path: path.stat().st_mtime)
        for path in kept[:-KEEP]:
            path.unlink()
        if len(kept) >= KEEP:
            settings = [part for setting in COLLECT for part in ("-c", setting)]
            git.run(self.context(), *settings, "gc", "--auto", "--quiet")

    def _is_damaged(self) -> bool:
        """Whether something that should be here is not."""
        return git.run(self.context(), "rev-list", "--objects", "--quiet", "--all").status != 0

    def _forget(self) -> None:
        # Without this mark the rest counts for nothing, so dying in the middle does no harm.
        with suppress(FileNotFoundError):
            (self.path / "whole").unlink()
        folder.discard(self.path)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, self.path.with_name(f"{self.path.name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
