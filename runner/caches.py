"""Folders that jobs of a repository find again on this machine, by path: `cache-dirs`. They may be removed any time."""

import hashlib
import secrets
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from dstack.model.job import Job
from runner import lending
from runner.executor import Lent
from runner.sweep import remove

LONGEST_NAME = 200
_KEPT, _GOING = "at-", "going-"


class Caches:
    """Below `folder`. Jobs that run at once share what they name alike."""

    def __init__(self, folder: Path) -> None:
        """Nothing is made yet."""
        self._folder = folder

    def of(self, job: Job) -> tuple[Lent, ...]:
        """Those of a job, there or not. Raises StartFailed for a path that makes no sense."""
        return tuple(Lent(here=self._place(job, path), path=path, ours=True) for path in job.cache_dirs)

    def make(self, job: Job) -> None:
        """Have them there. Raises OSError, StartFailed."""
        for one in self.of(job):
            one.here.mkdir(parents=True, exist_ok=True, mode=0o700)

    def trim(self, used: Iterable[Job]) -> None:
        """Remove all that these jobs don't use. By another name first: half a cache is none. Raises OSError."""
        kept = {one.here for job in used for one in self.of(job)}
        if not self._folder.exists():
            return
        for path in sorted(self._folder.iterdir()):
            if path not in kept:
                going = self._folder / f"{_GOING}{secrets.token_hex(8)}"
                path.rename(going)
                remove(going)

    def _place(self, job: Job, path: str) -> Path:
        where = lending.place_of(job, path)
        name = quote(path if where is None else where, safe="")
        if len(name) > LONGEST_NAME:
            name = hashlib.sha256(name.encode()).hexdigest()
        return self._folder / (_KEPT + name)
