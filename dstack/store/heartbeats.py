"""Signs of life in the store: what runners and controllers write over and over, and who was seen when."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from dstack.model import keys
from dstack.model.codec import Value, decode, encode
from dstack.model.errors import Invalid
from dstack.model.pool import Heartbeat
from dstack.model.runspec import Utc
from dstack.store import parallel
from dstack.store.store import Head, Store

T = TypeVar("T")

LIMIT = 4 * 1024 * 1024
# A few are read as quickly without another thread.
PER_THREAD = 4

# What was read of each key, and what the store said of it then.
Known = dict[str, tuple[Head, Heartbeat]]
_Answers = dict[str, T | Invalid | None]


class ControllerHeartbeat(Value, frozen=True, kw_only=True):
    """`controllers/<id>.json`: somebody is home, and how long (seconds) he may be silent before he counts as gone.

    `pause`: why he decides nothing about runs; empty while he does.
    """

    version: int = 1
    controller: str
    host: str = ""
    beats: int = 0
    lease: float = 60.0
    pause: str = ""
    at: Utc


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A runner's heartbeat, and when it was written by the store's clock."""

    heartbeat: Heartbeat
    modified: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeats:
    """All runners' heartbeats, by (runner, instance), and a sentence for each that can't be read."""

    seen: Mapping[tuple[str, str], Seen] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSeen:
    """A controller's heartbeat, and when it was written by the store's clock."""

    heartbeat: ControllerHeartbeat
    modified: datetime


def write_runner(store: Store, heartbeat: Heartbeat) -> None:
    """Write a runner's heartbeat over its last one."""
    store.put(keys.runner_heartbeat(heartbeat.runner, heartbeat.instance), encode(heartbeat))


def delete_runner(store: Store, runner: str, instance: str) -> None:
    """Remove the heartbeat of an instance that is gone for good."""
    store.delete(keys.runner_heartbeat(runner, instance))


def read_runners(store: Store, known: Known | None = None) -> Heartbeats:
    """All runners' heartbeats. One that is broken is reported, not raised; a store that is away raises Unavailable.

    What is in `known` and has the same version there isn't read again; afterwards it holds what was found.
    """
    heads = tuple(store.list(keys.RUNNERS))
    answers: _Answers[Heartbeat] = {head.key: before for head in heads if (before := _known(known, head))}
    answers |= _all(store, [head.key for head in heads if head.key not in answers], _runner)
    seen: dict[tuple[str, str], Seen] = {}
    problems: list[str] = []
    found: Known = {}
    for head in heads:
        heartbeat = answers[head.key]
        if isinstance(heartbeat, Invalid):
            problems.append(f"the heartbeat {head.key} can't be used: {heartbeat}")
        elif heartbeat is not None:
            found[head.key] = (head, heartbeat)
            seen[heartbeat.runner, heartbeat.instance] = Seen(heartbeat=heartbeat, modified=head.modified)
    if known is not None:
        known.clear()
        known.update(found)
    return Heartbeats(seen=seen, problems=tuple(problems))


def write_controller(store: Store, heartbeat: ControllerHeartbeat) -> None:
    """Write a controller's heartbeat over its last one."""
    store.put(keys.controller_heartbeat(heartbeat.controller), encode(heartbeat))


def read_controllers(store: Store) -> tuple[ControllerSeen, ...]:
    """All controllers' heartbeats that can be read, the newest first."""
    heads = tuple(store.list(keys.CONTROLLERS))
    answers = _all(store, [head.key for head in heads], _controller)
    # They are there for readers only: what can't be read tells them nothing.
    found = [
        ControllerSeen(heartbeat=heartbeat, modified=head.modified)
        for head in heads
        if isinstance(heartbeat := answers[head.key], ControllerHeartbeat)
    ]
    return tuple(sorted(found, key=lambda one: one.modified, reverse=True))


def home(store: Store) -> ControllerSeen | None:
    """A controller that was seen within its lease, by the store's clock; None where nobody is home.

    One that decides comes before those that don't.
    """
    now = store.now()
    idle: ControllerSeen | None = None
    for one in read_controllers(store):
        if (now - one.modified).total_seconds() <= one.heartbeat.lease:
            if not one.heartbeat.pause:
                return one
            idle = one
    return idle


def _all(store: Store, asked: Sequence[str], read: Callable[[Store, str], T | None]) -> _Answers[T]:
    """What is at these keys, or what is wrong with it; several at once, where they are many."""
    answers: _Answers[T] = {}

    def answer(key: str) -> None:
        try:
            answers[key] = read(store, key)
        except Invalid as error:
            answers[key] = error

    parallel.each(asked, answer, width=min(store.width, len(asked) // PER_THREAD))
    return answers


def _known(known: Known | None, head: Head) -> Heartbeat | None:
    before, heartbeat = (known or {}).get(head.key, (None, None))
    return heartbeat if head.version and head == before else None


def _runner(store: Store, key: str) -> Heartbeat | None:
    heartbeat = _read(store, key, Heartbeat)
    if heartbeat is not None:
        _check(key, keys.runner_heartbeat(heartbeat.runner, heartbeat.instance))
    return heartbeat


def _controller(store: Store, key: str) -> ControllerHeartbeat | None:
    return _read(store, key, ControllerHeartbeat)


def _read(store: Store, key: str, type_: type[T]) -> T | None:
    data = store.get(key, limit=LIMIT)
    return None if data is None else decode(data, type_, "it", limit=LIMIT)


def _check(key: str, expected: str) -> None:
    if key != expected:
        msg = f"by its content it belongs at {expected}"
        raise Invalid(msg)
