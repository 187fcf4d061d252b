"""The slow work after an attempt's commands: the log is closed, then the artifacts are saved, as one set."""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dstack.model import keys
from dstack.model.errors import DstackError, Unavailable
from dstack.model.job import Reason
from dstack.store.artifacts import DiskFull, Incomplete, Saved, Tree, save
from dstack.store.scanning import scan
from dstack.store.store import Store
from runner.cancelling import Cancel
from runner.held import Failure, Held, Kept
from runner.outcome import notice
from runner.preparing import HeldUp
from runner.shipment import Shipment
from runner.telling import telling
from runner.transfers import Watch, What

T = TypeVar("T")

_ADVICE = "mend that and run the job again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What an attempt leaves behind. `find` gives its artifacts' tree; None where none are to be saved.

    `memory` is a file for their digests, so that what a save that is cut short has read is not read again. `watch`: who
    shows how far that is.
    """

    held: Held
    shipment: Shipment
    store: Store
    find: Callable[[], Tree] | None
    memory: Path
    watch: Watch


def finish(remains: Remains, cancel: Cancel, at: float) -> Kept:
    """Log first, artifacts then. `at` in seconds of the epoch. Raises HeldUp (store away: call again), Cancelled."""
    tree, unfound = _find(remains)
    size, unclosed = _close(remains, tree, unfound, at)
    if tree is None:
        return Kept(log_size=size, failure=unclosed or unfound)
    cancel.check()
    outcome, unsaved = _guarded(lambda: _save(remains, tree, cancel))
    saved, incomplete = outcome or (Saved(), None)
    return Kept(
        log_size=size,
        manifest=saved.digest,
        artifacts_size=saved.manifest.size if saved.manifest else 0,
        warnings=saved.warnings,
        failure=unclosed or unsaved or incomplete,
    )


def save_along(held: Held, tree: Tree, store: Store, memory: Path, cancel: Cancel) -> None:
    """Save, of a job that runs, what it names for that; then let it be known as what another attempt may start from.

    A set with nothing in it is no such thing. Raises Cancelled, and what `save` raises.
    """
    attempt, told = held.attempt, telling(f"artifacts of {held.key} saved while it runs", cancel)
    saved = save(store, tree, tuple(held.job.saves), progress=told, memory=memory)
    cancel.check()
    if saved.digest is not None and saved.manifest is not None and saved.manifest.entries:
        store.put(keys.saved(attempt.run, attempt.job, attempt.attempt), saved.digest.encode())


def _find(remains: Remains) -> tuple[Tree | None, Failure | None]:
    return _guarded(remains.find) if remains.find else (None, None)


def _close(remains: Remains, tree: Tree | None, unfound: Failure | None, at: float) -> tuple[int, Failure | None]:
    words = [*_last_words(remains.held, tree), *([unfound.message] if unfound else [])]
    try:
        return remains.shipment.close(words, at), None
    except Unavailable as error:
        raise HeldUp(_failed(Reason.UPLOAD_FAILED, f"its log could not be stored: {error}")) from error
    except DstackError as error:
        return 0, _failed(Reason.UPLOAD_FAILED, f"its log could not be stored: {error}")


def _last_words(held: Held, tree: Tree | None) -> list[str]:
    """Why it ended, where its own output doesn't tell; and what is missing of its artifacts."""
    last = notice(held)
    warnings: list[str] = []
    if tree is not None:
        try:
            found = scan(tree, held.job.artifacts)
            warnings = [*found.warnings, *found.problems]
        except (DstackError, OSError) as error:
            warnings = [f"the artifacts can't be saved: {error}"]
    return [*([last] if last else []), *warnings]


def _save(remains: Remains, tree: Tree, cancel: Cancel) -> tuple[Saved, Failure | None]:
    declared, told = remains.held.job.artifacts, telling(f"artifacts of {remains.held.key} saved", cancel)
    progress = remains.watch(What.ARTIFACTS, told)
    try:
        return save(remains.store, tree, declared, progress=progress, memory=remains.memory), None
    except Incomplete as error:
        return error.saved, _failed(Reason.UPLOAD_FAILED, str(error))


def _guarded(work: Callable[[], T]) -> tuple[T | None, Failure | None]:
    """What it gives, or why there is nothing. Raises HeldUp where waiting helps."""
    try:
        return work(), None
    except Unavailable as error:
        raise HeldUp(_failed(Reason.UPLOAD_FAILED, f"its artifacts could not be saved: {error}")) from error
    except DiskFull as error:
        return None, _failed(Reason.DISK_FULL, str(error))
    except DstackError as error:
        return None, _failed(Reason.UPLOAD_FAILED, f"its artifacts could not be saved: {error}; {_ADVICE}")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            text = "its artifacts could not be saved: the disk of the runner is full; free space there"
            raise HeldUp(_failed(Reason.DISK_FULL, text)) from error
        return None, _failed(Reason.UPLOAD_FAILED, f"its artifacts could not be saved: {error.strerror}; {_ADVICE}")


def _failed(reason: Reason, message: str) -> Failure:
    return Failure(reason=reason, message=message)
