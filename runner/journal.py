"""What a runner must find again after a crash and can't derive: the attempts in hand, and claims not yet pushed."""

import logging
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
from tinydb import TinyDB

from dstack.durable import DurableStorage
from dstack.model.codec import Value, convert
from dstack.model.errors import Failed
from dstack.model.events import Ended, Times
from dstack.model.job import Job, Reason
from dstack.model.pool import Attempt, Phase
from dstack.model.world import Moment
from runner.executor import Exit
from runner.held import Cause, Failure, Held

LOG = logging.getLogger(__name__)

INSTANCE_DIGITS = 16
RUNNING_SECONDS = 0.5
AGAIN_SECONDS = 5.0
_INSTANCE_LENGTHS = range(8, 65)


class Entry(Value, frozen=True, kw_only=True):
    """One attempt as it is written down. Its key is `<job>.<attempt>`."""

    key: str
    attempt: Attempt
    job: Job
    oid: str
    phase: Phase
    times: Times = Times()
    cause: Cause | None = None
    exit: Exit | None = None
    failure: tuple[Reason, str] | None = None
    ended: Ended | None = None
    ended_known: bool = False
    gpus: tuple[int, ...] = ()


class Journal:
    """Attempts in hand, on disk. `due_at`: when `save` is to be called again (ticks)."""

    def __init__(self, path: Path) -> None:
        """Open or begin the file. Raises Failed where it can't be read."""
        try:
            self._db = TinyDB(path, storage=DurableStorage)
        except OSError as error:
            msg = f"the runner's journal {path} can't be opened: {error.strerror}"
            raise Failed(msg) from error
        self.due_at: float | None = None
        self._written: Mapping[str, Held] = {}

    def load(self, now: Moment) -> tuple[Held, ...]:
        """What was in hand when the last process ended. An entry that can't be read is left out, with a warning."""
        found = [held for document in self._db.all() if (held := _read(dict(document), now))]
        self._written = {held.key: held for held in found}
        return tuple(found)

    def save(self, held: Mapping[str, Held], now: float) -> None:
        """Write down what matters of this, if it changed (one sync). Raises OSError; may then be called again.

        Claims, GPUs that were given, and why attempts are being ended, are written at once; that they run, within half
        a second (`now` in ticks): by then most short ones have ended. The rest, which can be derived again, goes with
        the next write.
        """
        if any(_is_new_claim(self._written.get(key), one) for key, one in held.items()):
            self._try(held, now)
        elif not any(_is_newly_running(self._written.get(key), one) for key, one in held.items()):
            self.due_at = None
        elif self.due_at is None:
            self.due_at = now + RUNNING_SECONDS
        elif now >= self.due_at:
            self._try(held, now)

    def save_all(self, held: Mapping[str, Held]) -> None:
        """Write down all of it now. Raises OSError."""
        if self._written != held:
            self._replace(held.values())
        storage = cast("DurableStorage", self._db.storage)
        storage.flush()
        self._written, self.due_at = dict(held), None

    def _try(self, held: Mapping[str, Held], now: float) -> None:
        self.due_at = now + AGAIN_SECONDS
        self.save_all(held)

    def close(self) -> None:
        """Write the last of it."""
        self._db.close()

    def _replace(self, held: Iterable[Held]) -> None:
        self._db.truncate()
        self._db.insert_multiple(msgspec.to_builtins(_entry(one)) for one in held)


def instance_of(folder: Path) -> str:
    """The id of the runner whose state is kept in this folder; made the first time. Raises Failed."""
    path = folder / "instance"
    try:
        if not path.exists():
            scratch = path.with_name("instance.new")
            scratch.write_text(secrets.token_hex(INSTANCE_DIGITS // 2))
            scratch.replace(path)
        instance = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"the runner's state folder {folder} can't be used: {error}"
        raise Failed(msg) from error
    if not (instance.isascii() and instance.isalnum() and len(instance) in _INSTANCE_LENGTHS):
        msg = f"{path} is damaged: remove it, and the runner starts as a new one"
        raise Failed(msg)
    return instance


def _is_new_claim(before: Held | None, after: Held) -> bool:
    if before is None:
        return after.ended is not None or after.cause is not None or bool(after.gpus)
    return (
        before.gpus != after.gpus
        or (before.ended is None and after.ended is not None)
        or before.cause is not after.cause
    )


def _is_newly_running(before: Held | None, after: Held) -> bool:
    return after.phase is Phase.RUNNING and (before is None or before.phase is not Phase.RUNNING)


def _entry(held: Held) -> Entry:
    return Entry(
        key=held.key,
        attempt=held.attempt,
        job=held.job,
        oid=held.oid,
        phase=held.phase,
        times=held.times,
        cause=held.cause,
        exit=held.exit,
        failure=(held.failure.reason, held.failure.message) if held.failure else None,
        ended=held.ended,
        ended_known=held.ended_known,
        gpus=held.gpus,
    )


def _read(document: dict[str, Any], now: Moment) -> Held | None:
    try:
        entry = convert(document, Entry)
    except (msgspec.ValidationError, ValueError) as error:
        LOG.warning("an attempt in the journal can't be read and is left out: %s", error)
        return None
    held = Held(
        attempt=entry.attempt,
        job=entry.job,
        oid=entry.oid,
        phase=entry.phase,
        times=entry.times,
        cause=entry.cause,
        exit=entry.exit,
        failure=Failure(reason=entry.failure[0], message=entry.failure[1]) if entry.failure else None,
        ended=entry.ended,
        ended_known=entry.ended_known,
        gpus=entry.gpus,
    )
    return replace(held, deadline=_deadline(held, now))


def _deadline(held: Held, now: Moment) -> float | None:
    """The timeout goes on while the runner is down. By the wall clock, since ticks begin anew."""
    if held.phase is not Phase.RUNNING or held.job.timeout is None or held.times.running is None:
        return None
    passed = (now.wall - held.times.running).total_seconds()
    return now.ticks + min(max(0.0, held.job.timeout - passed), held.job.timeout)
