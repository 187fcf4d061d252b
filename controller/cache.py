"""The cache in the store: hints about keys, read and checked against what is really there, and written.

No look at a store may hold up a turn: each turn gives it so many seconds, and what isn't known by then is asked again.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from dstack.model import keys
from dstack.model.codec import decode, encode
from dstack.model.errors import DstackError, Invalid
from dstack.model.past import Past
from dstack.model.resuming import Pointer
from dstack.model.reuse import Answer, Hint, Lookup
from dstack.store import parallel
from dstack.store.artifacts import Missing, load
from dstack.store.condemned import Condemnations
from dstack.store.store import Store

LOG = logging.getLogger(__name__)

HINT_LIMIT = 64 * 1024
TURN_SECONDS = 1.0
# A store that fails for so long answers nothing: jobs run rather than wait.
PATIENCE_SECONDS = 15.0
TRY_SECONDS = 1.0
REMEMBER_SECONDS = 300.0
AT_ONCE = 256


@dataclass(slots=True, kw_only=True)
class _Trouble:
    """A store that failed: since when, and when it was last tried, in ticks."""

    since: float
    tried: float


@dataclass(slots=True, kw_only=True)
class StoreCache:
    """Implements `controller.reusing.Cache`. `open_store` opens a store by URL and may raise DstackError.

    `clock`: monotonic seconds, for the limit of a turn alone. `archived`: whether a hint about an archived run is true.
    """

    open_store: Callable[[str], Store]
    clock: Callable[[], float] = time.monotonic
    archived: Callable[[str, Hint], Answer | None] = field(default=lambda _key, _hint: None)
    reads: int = 0
    _hints: dict[Lookup, tuple[float, Hint]] = field(default_factory=dict)
    _whole: dict[tuple[str, str], float] = field(default_factory=dict)
    _checks: dict[tuple[str, str], Iterator[tuple[str, int]]] = field(default_factory=dict)
    _condemned: dict[str, tuple[float, Condemnations]] = field(default_factory=dict)
    _trouble: dict[str, _Trouble] = field(default_factory=dict)
    _turn: float = -1.0
    _deadline: float = 0.0

    def look_up(self, lookups: Iterable[Lookup], past: Past, now: float) -> Mapping[Lookup, Answer | None]:
        """What is known of these keys by now; `now` in ticks. What is left out is to be asked again."""
        self._begin(now)
        wanted: dict[str, list[Lookup]] = {}
        for lookup in lookups:
            wanted.setdefault(lookup.store, []).append(lookup)
        found: dict[Lookup, Answer | None] = {}
        for url, some in wanted.items():
            if not self._is_tried(url, now):
                found.update(dict.fromkeys(some) if self._is_given_up(url, now) else {})
                continue
            try:
                self._look_in(self.open_store(url), some, past, found, now)
            except DstackError as error:
                self._failed(url, error, now)
                if self._is_given_up(url, now):
                    found.update(dict.fromkeys(lookup for lookup in some if lookup not in found))
            else:
                self._trouble.pop(url, None)
        return found

    def keep(self, answers: Mapping[Lookup, Answer], now: float) -> None:
        """Write down which jobs answer these keys. What can't be written only costs time later."""
        end = self.clock() + TURN_SECONDS
        for url in sorted({lookup.store for lookup in answers}):
            some = [(lookup, Hint(run=one.run, job=one.job)) for lookup, one in answers.items() if lookup.store == url]
            self._hints.update({lookup: (now + REMEMBER_SECONDS, hint) for lookup, hint in some})
            if not self._is_tried(url, now):
                continue
            try:
                store, left = self.open_store(url), iter(some)
                # What there is no time for is only a hint.
                while (part := list(islice(left, AT_ONCE))) and self.clock() < end:
                    parallel.each(part, partial(_write, store), width=min(store.width, len(part)))
            except DstackError as error:
                self._failed(url, error, now)

    def find_sets(self, pointers: Iterable[Pointer], now: float) -> Mapping[Pointer, str | None]:
        """The whole artifact sets that these lead to, None where there is none; what is left out is asked again."""
        self._begin(now)
        found: dict[Pointer, str | None] = {}
        for url, key in sorted(pointers):
            if not self._is_tried(url, now):
                continue
            try:
                store = self.open_store(url)
                digest = _named(store, key)
                whole = digest is not None and self._is_whole(store, digest, now)
            except DstackError as error:
                self._failed(url, error, now)
                continue
            self._trouble.pop(url, None)
            if whole is not None:
                found[url, key] = digest if whole else None
        return found

    def _begin(self, now: float) -> None:
        """A new turn has its own time."""
        if now == self._turn:
            return
        self._turn, self._deadline = now, self.clock() + TURN_SECONDS
        self._hints = {lookup: one for lookup, one in self._hints.items() if one[0] > now}
        self._whole = {what: until for what, until in self._whole.items() if until > now}
        if len(self._checks) > AT_ONCE:
            self._checks.clear()  # of jobs that nobody waits for any more; the others begin anew

    def _look_in(
        self, store: Store, lookups: list[Lookup], past: Past, found: dict[Lookup, Answer | None], now: float
    ) -> None:
        left = iter(lookups)
        while (some := list(islice(left, AT_ONCE))) and self.clock() < self._deadline:
            hints = self._read(store, [lookup for lookup in some if lookup not in self._hints])
            self._hints.update({lookup: (now + REMEMBER_SECONDS, hint) for lookup, hint in hints.items() if hint})
            for lookup in some:
                _, hint = self._hints.get(lookup, (0.0, None))
                answer = (past.answer(lookup.key, hint) or self.archived(lookup.key, hint)) if hint else None
                whole = self._is_whole(store, answer.manifest, now) if answer and answer.manifest else True
                if whole is not None:
                    found[lookup] = answer if whole else None

    def _read(self, store: Store, lookups: list[Lookup]) -> dict[Lookup, Hint | None]:
        found: dict[Lookup, Hint | None] = {}

        def read(lookup: Lookup) -> None:
            data = store.get(keys.cache(lookup.key), limit=HINT_LIMIT)
            found[lookup] = decode(data, Hint, "a hint", limit=HINT_LIMIT) if data is not None else None

        def excused(lookup: Lookup) -> None:
            try:
                read(lookup)
            except Invalid:
                found[lookup] = None  # it is broken, and will be written anew

        self.reads += len(lookups)
        parallel.each(lookups, excused, width=max(1, min(store.width, len(lookups))))
        return found

    def _is_whole(self, store: Store, digest: str, now: float) -> bool | None:
        """Whether the manifest and all it names are in the store; None where there is no time left to tell."""
        what = store.url, digest
        if what in self._whole:
            return True
        if self._is_condemned(store, digest, now):
            return False
        try:
            if what not in self._checks:
                self._checks[what] = iter(load(store, digest).objects().items())
            left = self._checks[what]
            while some := list(islice(left, AT_ONCE)):
                parallel.each(some, partial(_check, store), width=min(store.width, len(some)))
                if self.clock() >= self._deadline:
                    return None
        except (Missing, Invalid):
            self._checks.pop(what, None)
            return False
        except DstackError:
            self._checks.pop(what, None)
            raise
        del self._checks[what]
        self._whole[what] = now + REMEMBER_SECONDS
        return True

    def _is_condemned(self, store: Store, digest: str, now: float) -> bool:
        """Whether prune has named it, some minutes ago or before: it deletes nothing for a day."""
        until, lists = self._condemned.get(store.url) or (now, Condemnations())
        if until <= now:
            lists.look(store)
            self._condemned[store.url] = now + REMEMBER_SECONDS, lists
        return lists.holds(store, digest)

    def _is_tried(self, url: str, now: float) -> bool:
        """A store that failed is asked now and then."""
        trouble = self._trouble.get(url)
        return trouble is None or now >= trouble.tried + TRY_SECONDS

    def _is_given_up(self, url: str, now: float) -> bool:
        trouble = self._trouble.get(url)
        return trouble is not None and now >= trouble.since + PATIENCE_SECONDS

    def _failed(self, url: str, error: DstackError, now: float) -> None:
        if url not in self._trouble:
            LOG.warning("what could be reused can't be looked up: %s", error)
        since = self._trouble[url].since if url in self._trouble else now
        self._trouble[url] = _Trouble(since=since, tried=now)


def _named(store: Store, key: str) -> str | None:
    """The digest that a manifest's key has, or that a save has written down."""
    if key.startswith(keys.manifest("")):
        return key.removeprefix(keys.manifest(""))
    data = store.get(key, limit=HINT_LIMIT)
    return None if data is None else data.decode(errors="replace").strip()


def _write(store: Store, what: tuple[Lookup, Hint]) -> None:
    lookup, hint = what
    store.put(keys.cache(lookup.key), encode(hint))


def _check(store: Store, what: tuple[str, int]) -> None:
    key, size = what
    head = store.head(key)
    if head is None or head.size != size:
        msg = f"the store {store.url} no longer has {key}"
        raise Missing(msg)
