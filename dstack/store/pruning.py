"""Frees the store in two phases: what nothing mentions is condemned, and a day later what still is so is deleted."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple

from dstack.model import keys, pruning
from dstack.model.batches import batched
from dstack.model.codec import decode
from dstack.model.errors import Invalid
from dstack.model.pruning import Living
from dstack.model.reuse import Hint
from dstack.store import condemned, deleting, parallel
from dstack.store.artifacts import Missing, load
from dstack.store.condemned import Listed
from dstack.store.key import split_key
from dstack.store.store import Head, Store

FOLDERS = ("objects/", "manifests/", "logs/", "saved/", "cache/", "runners/", "controllers/", "watched/")
BATCH = 256
_SMALL = 64 * 1024


@dataclass(slots=True)
class Amount:
    """Objects of the store, and their bytes."""

    objects: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """One more."""
        self.objects += 1
        self.bytes += size


@dataclass(slots=True, kw_only=True)
class Found:
    """What a look shows: `fresh` is to be condemned, `waiting` is and isn't due yet, `due` can be deleted.

    `since`: when the latest of what waits was condemned. `lists` are those that are due. `unknown`: runs that are
    nowhere, and whose logs are among it: they were deleted by hand, or are another remote's.
    """

    fresh: list[str] = field(default_factory=list)
    condemn: Amount = field(default_factory=Amount)
    waiting: Amount = field(default_factory=Amount)
    due: Amount = field(default_factory=Amount)
    since: datetime | None = None
    lists: list[str] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)


def living(store: Store, digests: Collection[str], known: Living) -> Living:
    """What must stay: `known`, with the contents of all sets that are in `digests`, or saved, or young.

    Raises Invalid where a set can't be understood, and what a store raises: then nothing may be deleted.
    """
    now, contents = store.now(), set(known.contents)
    sets, roots = set(digests) | _saved(store, known, now), list[str]()
    for head in store.list(keys.manifest("")):
        digest = head.key.removeprefix(keys.manifest(""))
        # A young set is about to be named by somebody, or was.
        if _is_digest(digest) and (digest in sets or not pruning.is_old(head.modified, now)):
            roots.append(digest)

    def read(digest: str) -> None:
        try:
            named = load(store, digest).objects()
        except Missing:
            named = {}  # gone or damaged: nobody can use what it named
        contents.update(named)

    contents.update(map(keys.manifest, roots))
    parallel.each(roots, read, width=store.width)
    return replace(known, contents=contents)


def look(store: Store, alive: Living) -> Found:
    """What could leave the store now and later. Changes nothing."""
    found, now = Found(), store.now()
    lists = list(condemned.read(store))
    at = {key: one.at for one in sorted(lists, key=lambda one: one.at, reverse=True) for key in one.condemned}
    for head in unneeded(store, alive, now):
        when = at.get(head.key)
        if run := keys.run_of_log(head.key):
            found.unknown.add(run)
        if when is None or pruning.is_off(head.modified, when):
            found.fresh.append(head.key)
            found.condemn.add(head.size)
        elif pruning.is_due(when, now):
            found.due.add(head.size)
        else:
            found.waiting.add(head.size)
            found.since = max(found.since or when, when)
    found.lists = [one.key for one in lists if pruning.is_due(one.at, now)]
    return found


def unneeded(store: Store, alive: Living, now: datetime) -> Iterator[Head]:
    """All that is old, and that nothing needs."""
    for folder in FOLDERS:
        old = (head for head in store.list(folder) if pruning.is_old(head.modified, now))
        if folder != "cache/":
            yield from (head for head in old if not alive.needs(head.key))
            continue
        for some in batched(old, BATCH):
            hints = _hints(store, [head.key for head in some])
            yield from (head for head in some if not alive.needs(head.key, hints.get(head.key, "")))


def delete(store: Store, alive: Living) -> Amount:
    """Delete what lists name that are due, but what `alive` needs and what was written anew; then the lists.

    `alive` must be younger than the lists' day. Raises Conflict where somebody else deletes. May be killed anywhere.
    """
    gone = Amount()
    with deleting.alone(store) as sign:
        for one in condemned.read(store):
            if pruning.is_due(one.at, store.now()):
                for some in batched(one.condemned, BATCH):
                    sign.renew()
                    _delete_some(_Batch(store, one, alive, sign), some, gone)
                store.delete(one.key)
    return gone


def forget(store: Store, run: str) -> Amount:
    """Delete at once what the store has of this run alone: its logs, and what it saved by name. Not its artifacts."""
    gone = Amount()
    heads = [head for folder in ("logs", "saved") for head in store.list(f"{folder}/{run}/")]

    def one(head: Head) -> None:
        store.delete(head.key)

    parallel.each(heads, one, width=store.width)
    store.delete(keys.watched(run))
    for head in heads:
        gone.add(head.size)
    return gone


class _Batch(NamedTuple):
    store: Store
    listed: Listed
    alive: Living
    sign: deleting.Sign

    def may_go(self, key: str) -> Head | None:
        """What is there and is to be deleted, as it is by now."""
        if not key.startswith(FOLDERS) or not _is_key(key):
            return None
        if self.alive.needs(key, _hint(self.store, key) if key.startswith("cache/") else ""):
            return None
        head = self.store.head(key)
        if head is None or pruning.is_off(head.modified, self.listed.at):
            return None
        return head if pruning.is_old(head.modified, self.store.now()) else None


def _delete_some(batch: _Batch, some: Iterable[str], gone: Amount) -> None:
    sizes: list[int] = []

    def one(key: str) -> None:
        head = batch.may_go(key)
        if head is not None:
            batch.sign.check()
            batch.store.delete(key)
            sizes.append(head.size)

    parallel.each(some, one, width=batch.store.width)
    for size in sizes:
        gone.add(size)


def _is_key(text: str) -> bool:
    try:
        split_key(text)
    except Invalid:
        return False
    return True


def _saved(store: Store, known: Living, now: datetime) -> set[str]:
    """The sets that attempts have saved, of runs that aren't archived, or lately."""
    found: set[str] = set()

    def read(key: str) -> None:
        data = store.get(key, limit=_SMALL)
        if data is not None:
            found.update(pruning.mentioned(data))

    heads = store.list("saved/")
    kept = [head.key for head in heads if known.needs(head.key) or not pruning.is_old(head.modified, now)]
    parallel.each(kept, read, width=store.width)
    return found


def _hints(store: Store, asked: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}

    def read(key: str) -> None:
        found[key] = _hint(store, key)

    parallel.each(asked, read, width=store.width)
    return found


def _hint(store: Store, key: str) -> str:
    """The run that a hint names; empty where it is broken or gone."""
    try:
        data = store.get(key, limit=_SMALL)
        return decode(data, Hint, "a hint", limit=_SMALL).run if data is not None else ""
    except Invalid:
        return ""


def _is_digest(text: str) -> bool:
    return pruning.mentioned(text.encode()) == {text}
