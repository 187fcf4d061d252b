"""The checks of `init` and `doctor`: each looks at one thing dstack needs, and says how to mend it."""

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from cli.reading import Reader
from cli.runners import idle, runner_lines, unheeded
from cli.session import Seen, Session
from dstack.ledger import git
from dstack.ledger.cache import Cache
from dstack.ledger.git import Context
from dstack.ledger.gitledger import GitLedger
from dstack.ledger.push import RefUpdate
from dstack.ledger.remote import Remote
from dstack.ledger.submit import refusal
from dstack.model.errors import DstackError, Failed
from dstack.store import heartbeats
from dstack.store.store import Granted

PROBE = "refs/dstack/probe/"
LOCK_SECONDS = 60.0
CLOCK_SECONDS = 60.0
SHOWN = 5


class Result(StrEnum):
    """How a check ended: good; worth knowing; dstack can't work so."""

    GOOD = "ok"
    ODD = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was looked at, how it is, and what to do."""

    name: str
    result: Result
    text: str


def guarded(name: str, look: Callable[[], str]) -> Check:
    """A check that is good with the sentence `look` gives, and bad with the error it raises."""
    try:
        return Check(name=name, result=Result.GOOD, text=look())
    except DstackError as error:
        return Check(name=name, result=Result.BAD, text=str(error))


def git_check(folder: Path) -> Check:
    """Git is there and new enough."""

    def look() -> str:
        git.check_version(Context(folder=folder))
        return git.output(Context(folder=folder), "version").decode(errors="replace").strip()

    return guarded("git", look)


class Reached(Protocol):
    """A state remote behind a cache of our own."""

    @property
    def remote(self) -> Remote:
        """The state remote."""
        ...

    @property
    def cache(self) -> Cache:
        """What is read and pushed through."""
        ...


def push_check(session: Reached) -> Check:
    """Two refs can be made and removed again in one atomic push."""

    def look() -> str:
        cache, nonce = session.cache, secrets.token_hex(8)
        blob = cache.objects.write_blob(f"dstack looks whether it may push ({nonce})\n".encode())
        commit = cache.objects.write_commit(cache.objects.write_tree({}), [], f"Probe {blob}")
        names = [f"{PROBE}{nonce}-{number}" for number in (1, 2)]
        made = cache.push([RefUpdate(name, None, commit) for name in names], atomic=True)
        if not made.won:
            raise refusal(made, session.remote.url)
        gone = cache.push([RefUpdate(name, commit, None) for name in names], atomic=True)
        if not gone.won:
            raise refusal(gone, session.remote.url)
        return f"{session.remote.url} takes atomic pushes"

    return guarded("push", look)


def store_check(seen: Seen) -> Check:
    """The store is ours, can be written to, read, listed and cleaned, whole and in parts; its clock is about ours."""
    odd: list[str] = []

    def look() -> str:
        store, key = seen.store(), f"probes/{secrets.token_hex(8)}"
        store.put(key, key.encode())
        if store.get(key, limit=1024) != key.encode() or key not in {head.key for head in store.list("probes/")}:
            msg = f"the store {seen.store_url} doesn't give back what was just put there: is a cache in between?"
            raise Failed(msg)
        if store.put(key, b"again", if_absent=True):
            odd.append("of two who write an object first, both win there (the server ignores If-None-Match)")
        ahead = (store.now() - datetime.now(UTC)).total_seconds()
        if abs(ahead) > CLOCK_SECONDS:
            odd.append(f"its clock is {ahead:+.0f} s from this machine's: set them by NTP")
        store.delete(key)
        if isinstance(store, Granted) and (rights := store.lacking(key)):
            odd.append(f"uploads that were cut off begin anew and stay there: give this key {' and '.join(rights)}")
        return f"{seen.store_url} can be read and written"

    check = guarded("store", look)
    worth_knowing = odd and check.result is Result.GOOD
    return replace(check, result=Result.ODD, text=f"{check.text}, but {'; '.join(odd)}") if worth_knowing else check


def lock_check(remote: Path) -> Check:
    """Nothing that crashed has left a lock behind that stops every push."""
    now = time.time()
    stale = [path for path in _locks(remote) if _age(path, now) > LOCK_SECONDS]
    if not stale:
        return Check(name="locks", result=Result.GOOD, text="no stale locks in the state remote")
    names = ", ".join(str(path) for path in stale[:SHOWN])
    text = f"a crash has left {len(stale)} locks in the state remote: if no git works there, remove {names}"
    return Check(name="locks", result=Result.BAD, text=text)


def _locks(remote: Path) -> Iterator[Path]:
    yield from remote.glob("*.lock")
    yield from (remote / "refs").rglob("*.lock")


def _age(path: Path, now: float) -> float:
    try:
        return now - path.stat().st_mtime
    except OSError:
        return 0.0


def home_check(seen: Seen) -> Check:
    """A controller has been seen."""
    try:
        one = heartbeats.home(seen.store())
    except DstackError as error:
        return Check(name="controller", result=Result.BAD, text=str(error))
    if one:
        host = one.heartbeat.host or "an unknown host"
        return Check(name="controller", result=Result.GOOD, text=f"one is at work on {host}")
    text = "none has been seen: start one with `dstack up` (or `dstack controller`)"
    return Check(name="controller", result=Result.ODD, text=text)


def runners_check(reader: Reader, seen: Seen) -> Check:
    """A runner is live."""
    live = [line for line in runner_lines(reader, seen) if line.status == "live"]
    if live:
        odd = [f"{line.runner}: {why}" for line in live for why in idle(line)] + unheeded(live)
        text = f"live: {', '.join(line.runner for line in live)}"
        return Check(name="runners", result=Result.ODD if odd else Result.GOOD, text="; ".join([text, *odd]))
    text = "none is live: start one with `dstack up`, or `dstack-runner start` on any machine"
    return Check(name="runners", result=Result.ODD, text=text)


def records_check(session: Session) -> Check:
    """Everything in the state remote can be read."""
    try:
        problems = GitLedger(session.cache).observe().problems
    except DstackError as error:
        return Check(name="records", result=Result.BAD, text=str(error))
    if not problems:
        return Check(name="records", result=Result.GOOD, text="all records can be read")
    more = f" (and {len(problems) - SHOWN} more)" if len(problems) > SHOWN else ""
    text = f"some can't be read, and are passed over: {'; '.join(problems[:SHOWN])}{more}"
    return Check(name="records", result=Result.ODD, text=text)
