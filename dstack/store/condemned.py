"""The lists of what is to leave the store: written once, read by whoever would use what they name."""

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from dstack.model import keys
from dstack.model.batches import batched
from dstack.model.codec import decode, encode
from dstack.model.errors import Invalid
from dstack.model.pruning import VERSION, Condemned, is_off
from dstack.store.store import Store

FOLDER = "condemned/"
LIMIT = 64 * 1024 * 1024
# So many keys in a list: some 8 MB.
MOST_KEYS = 100_000


class Listed(NamedTuple):
    """A list that is there: its key, when it was written by the store's clock, and what it names."""

    key: str
    at: datetime
    condemned: tuple[str, ...]


def write(store: Store, condemned: Iterable[str], by: str) -> datetime:
    """Condemn these keys; returns the store's time."""
    for some in batched(condemned, MOST_KEYS):
        data = encode(Condemned(at=store.now(), by=by, keys=some))
        while not store.put(f"{FOLDER}{secrets.token_hex(8)}", data, if_absent=True):
            pass
    return store.now()


def read(store: Store) -> Iterator[Listed]:
    """All lists, one at a time. Raises Invalid where one can't be read, and what a store raises."""
    for head in list(store.list(FOLDER)):
        found = _read(store, head.key)
        if found is not None:
            yield Listed(head.key, head.modified, found)


@dataclass(slots=True)
class Condemnations:
    """The artifact sets that are condemned in one store, as far as they were read by the last look.

    That is enough to tell about their objects too: an object is condemned only where no set that stays names it.
    """

    _sets: dict[str, dict[str, datetime]] = field(default_factory=dict)

    def look(self, store: Store) -> None:
        """Read the lists that are new, forget those that are gone; what can't be read condemns nothing."""
        there = {head.key: head.modified for head in store.list(FOLDER)}
        for gone in self._sets.keys() - there.keys():
            del self._sets[gone]
        for key in there.keys() - self._sets.keys():
            try:
                named = _read(store, key) or ()
            except Invalid:
                named = ()
            self._sets[key] = {one: there[key] for one in named if one.startswith(keys.manifest(""))}

    def holds(self, store: Store, digest: str) -> bool:
        """Whether the set of this digest is condemned, and wasn't written anew since."""
        key = keys.manifest(digest)
        times = [found[key] for found in self._sets.values() if key in found]
        if not times:
            return False
        head = store.head(key)
        return head is None or any(not is_off(head.modified, at) for at in times)


def _read(store: Store, key: str) -> tuple[str, ...] | None:
    data = store.get(key, limit=LIMIT)
    if data is None:
        return None
    found = decode(data, Condemned, f"the list {key}", limit=LIMIT)
    if found.version > VERSION:
        msg = f"the list {key} in the store {store.url} was written by a later version of dstack: upgrade dstack"
        raise Invalid(msg)
    return found.keys
