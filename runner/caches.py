"""Folders that jobs of a repository find again on this machine, by path: `cache-dirs`. They may be removed any time."""

import fcntl
import hashlib
import logging
import os
import secrets
import threading
from collections.abc import Collection, Iterable
from pathlib import Path
from urllib.parse import quote

from dstack.model.job import Job
from runner import lending
from runner.executor import Lent
from runner.sweep import remove

LOG = logging.getLogger(__name__)

LONGEST_NAME = 200
_KEPT, _GOING, _LOCK = "at-", "going-", "lock"


class Caches:
    """Below `folder`. Jobs that run at once share what they name alike; so may several runners, by a lock file."""

    def __init__(self, folder: Path) -> None:
        """Nothing is made yet."""
        self._folder = folder
        self._lock: int | None = None
        self._turn = threading.Lock()

    def of(self, job: Job) -> tuple[Lent, ...]:
        """Those of a job, there or not. Raises StartFailed for a path that makes no sense."""
        return tuple(Lent(here=self._place(job, path), path=path, ours=True) for path in job.cache_dirs)

    def make(self, job: Job) -> None:
        """Have them there. Raises OSError, StartFailed."""
        lent = self.of(job)
        with self._turn:
            if lent and self._lock is None:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._lock = os.open(self._folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._lock, fcntl.LOCK_SH)
        for one in lent:
            one.here.mkdir(exist_ok=True, mode=0o700)

    def trim(self, used: Iterable[Job]) -> None:
        """Remove all that these jobs don't use. By another name first: half a cache is none. Raises OSError.

        Where another runner has made use of them since it was started, they stay.
        """
        if not self._folder.exists():
            return
        lock = os.open(self._folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            if self._lock is not None:
                fcntl.flock(self._lock, fcntl.LOCK_UN)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._remove({one.here for job in used for one in self.of(job)})
        except BlockingIOError:
            LOG.info("caches in %s stay: another runner uses them", self._folder)
        finally:
            os.close(lock)
            if self._lock is not None:
                fcntl.flock(self._lock, fcntl.LOCK_SH)

    def close(self) -> None:
        """Use none any more."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _remove(self, kept: Collection[Path]) -> None:
        for path in sorted(self._folder.iterdir()):
            if path not in kept and path.name != _LOCK:
                going = self._folder / f"{_GOING}{secrets.token_hex(8)}"
                path.rename(going)
                remove(going)

    def _place(self, job: Job, path: str) -> Path:
        where = lending.place_of(job, path)
        name = quote(path if where is None else where, safe="")
        if len(name) > LONGEST_NAME:
            name = hashlib.sha256(name.encode()).hexdigest()
        return self._folder / (_KEPT + name)
