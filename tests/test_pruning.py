"""Freeing the store: two phases a day apart, and nothing that anybody needs is ever deleted."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller.cache import StoreCache
from dstack.model import keys, pruning
from dstack.model.codec import encode
from dstack.model.errors import Conflict, Invalid, Unavailable
from dstack.model.manifest import digest
from dstack.model.pruning import Living
from dstack.model.reuse import Hint
from dstack.model.s3_place import parse_place
from dstack.store import condemned, deleting
from dstack.store import pruning as store_pruning
from dstack.store.artifacts import Missing, load, save
from dstack.store.folder import FolderStore
from dstack.store.memory import MemoryStore
from dstack.store.s3 import S3Store
from dstack.store.scanning import Tree
from dstack.store.store import Head, Sent, Source, Store, unwatched
from tests.s3_server import S3Server

RUN = "fast-rabbit-1.0123456789ab"
DAY = timedelta(days=1)
NOBODY = Living(contents=frozenset(), runs=frozenset(), active=frozenset(), reusable=frozenset(), names=frozenset())


@dataclass
class Clock:
    now: datetime = field(default_factory=lambda: datetime(2026, 1, 1, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Place:
    """A store in memory, on a clock that tests move, and a folder to save from."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    store: MemoryStore = field(init=False)

    def __post_init__(self) -> None:
        self.store = MemoryStore(clock=self.clock)

    def save(self, text: str, store: Store | None = None) -> str:
        """Save a file as an artifact set; its digest."""
        (self.folder / "out").mkdir(exist_ok=True)
        (self.folder / "out/model").write_text(text)
        saved = save(store or self.store, Tree(root=self.folder), ("out",))
        assert saved.digest
        return saved.digest

    def alive(self, *digests: str, known: Living = NOBODY) -> Living:
        return store_pruning.living(self.store, digests, known)

    def prune(self, *digests: str, known: Living = NOBODY) -> int:
        """As the command does: delete what is due, condemn what is new. How many objects were deleted."""
        gone = store_pruning.delete(self.store, self.alive(*digests, known=known))
        found = store_pruning.look(self.store, self.alive(*digests, known=known))
        condemned.write(self.store, found.fresh, "somebody")
        return gone.objects

    def wait(self, days: float) -> None:
        self.clock.now += DAY * days

    def is_whole(self, saved: str) -> bool:
        try:
            named = load(self.store, saved).objects()
        except Missing:
            return False
        return all(self.store.head(key) for key in named)


@pytest.fixture
def here(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_nobody_mentions_is_condemned_then_deleted_a_day_later(here: Place) -> None:
    lost, kept = here.save("lost"), here.save("kept")
    here.wait(8)
    assert here.prune(kept) == 0
    assert here.is_whole(lost)
    here.wait(0.9)
    assert here.prune(kept) == 0
    here.wait(0.2)
    assert here.prune(kept) == 2
    assert not here.is_whole(lost)
    assert here.is_whole(kept)
    assert not list(here.store.list("condemned/"))
    assert not list(here.store.list("deleting/"))


def test_what_is_young_is_not_condemned_nor_what_a_young_set_names(here: Place) -> None:
    here.save("model")
    here.wait(6.9)
    assert here.prune() == 0
    assert not list(here.store.list("condemned/"))
    (here.folder / "out/more").write_text("more")
    young = here.save("model")
    here.wait(3)
    here.prune()
    here.wait(2)
    here.prune()
    assert here.is_whole(young)


def test_a_record_that_appears_between_the_phases_saves_it(here: Place) -> None:
    saved = here.save("model")
    here.wait(8)
    here.prune()
    here.wait(2)
    assert here.prune(saved) == 0
    assert here.is_whole(saved)
    assert not list(here.store.list("condemned/"))


def test_an_upload_between_the_phases_takes_it_off_the_list(here: Place) -> None:
    saved = here.save("model")
    here.wait(8)
    here.prune()
    here.wait(0.5)
    assert here.save("model") == saved
    for days in (2, 30):  # also where the second phase comes so late that the upload is old by then
        here.wait(days)
        store_pruning.delete(here.store, NOBODY)
        assert here.is_whole(saved)


def test_an_upload_while_phase_two_deletes_ends_whole(here: Place) -> None:
    saved = here.save("model")
    here.wait(8)
    here.prune()
    here.wait(2)
    failures: list[Unavailable] = []

    def upload() -> None:
        """As a runner does: again, until it has succeeded."""
        while True:
            try:
                here.save("model")
            except Unavailable as error:
                failures.append(error)
            else:
                return

    thread = threading.Thread(target=upload)

    class Slow(MemoryStore):
        """Between the look at the object's date and its deletion, the whole set is uploaded."""

        def delete(self, key: str) -> None:
            if key.startswith("objects/"):
                thread.start()
                while not all(_is_new(here, one) for one in (key, keys.manifest(saved))):
                    time.sleep(0.001)
                thread.join(0.2)
                assert thread.is_alive(), "the upload doesn't wait for who deletes"
            super().delete(key)

    slow = Slow(clock=here.clock)
    slow._lock, slow._objects = here.store._lock, here.store._objects
    slow.width = 1
    store_pruning.delete(slow, NOBODY)
    thread.join(30)
    assert len(failures) == 1
    assert here.is_whole(saved)


def _is_new(here: Place, key: str) -> bool:
    head = here.store.head(key)
    return head is not None and here.clock.now - head.modified < DAY


def test_only_one_deletes_at_a_time_and_a_sign_left_behind_is_forgotten(here: Place) -> None:
    here.save("model")
    here.wait(8)
    here.prune()
    here.wait(2)
    with deleting.alone(here.store), pytest.raises(Conflict, match="somebody else is freeing"):
        store_pruning.delete(here.store, NOBODY)
    deleting.Sign(here.store).renew()  # of one who is killed here
    here.clock.now += timedelta(minutes=16)
    deleting.settle(here.store)
    assert store_pruning.delete(here.store, NOBODY).objects == 2


def test_who_deletes_too_slowly_stops_before_his_sign_counts_as_left_behind(here: Place) -> None:
    ticks = [0.0]
    sign = deleting.Sign(here.store, clock=lambda: ticks[0])
    sign.renew()
    sign.check()
    ticks[0] = deleting.BATCH_SECONDS + 1
    with pytest.raises(Unavailable, match="too slow"):
        sign.check()


@pytest.mark.parametrize("calls", range(1, 12))
def test_a_prune_that_is_killed_anywhere_is_taken_up_by_the_next(here: Place, calls: int) -> None:
    kept = here.save("kept")
    here.save("lost")
    here.wait(8)
    here.prune(kept)
    here.wait(2)
    left = [calls]

    def killed() -> bool:
        left[0] -= 1
        return left[0] < 0

    alive = here.alive(kept)
    with suppress(Unavailable):
        store_pruning.delete(here.store.seen_by(killed), alive)
    here.clock.now += timedelta(minutes=16)
    here.prune(kept)
    assert here.is_whole(kept)
    assert len(list(here.store.list("objects/"))) == 1
    assert len(list(here.store.list("manifests/"))) == 1
    assert not list(here.store.list("condemned/"))


def test_what_is_condemned_answers_no_key_until_it_is_written_anew(here: Place) -> None:
    saved = here.save("model")
    here.wait(8)
    pointer = (here.store.url, keys.manifest(saved))
    cache = StoreCache(open_store=lambda _url: here.store)
    assert cache.find_sets([pointer], 0.0) == {pointer: saved}
    here.prune()
    assert cache.find_sets([pointer], 1000.0) == {pointer: None}
    here.save("model")
    assert cache.find_sets([pointer], 2000.0) == {pointer: saved}


def test_saved_sets_of_runs_that_are_not_archived_stay(here: Place) -> None:
    saved = here.save("checkpoint")
    here.store.put(keys.saved(RUN, "0123456789ab", 1), saved.encode())
    running = replace(NOBODY, active=frozenset([RUN]))
    for known, whole in ((running, True), (NOBODY, False)):
        for days in (8, 2, 2):
            here.wait(days)
            here.prune(known=known)
        assert here.is_whole(saved) is whole
    for days in (2, 2):
        here.wait(days)
        here.prune()
    assert not [head.key for head in here.store.list("saved/")]


def test_logs_and_hints_of_runs_that_are_nowhere_go_and_signs_of_life_left_behind(here: Place) -> None:
    gone, named = "lost-rabbit-1.0123456789ab", "new-rabbit-1.aaaaaaaaaaaa"
    known = replace(NOBODY, runs=frozenset([RUN]), reusable=frozenset([RUN]), names=frozenset(["new-rabbit-1"]))
    for run in (RUN, gone, named):
        here.store.put(keys.chunk(keys.log(run, "0123456789ab", 1), 0), b"text")
        here.store.put(keys.cache(digest(run.encode())), encode(Hint(run=run, job="0123456789ab")))
    here.store.put(keys.runner_heartbeat("old", "1"), b"{}")
    here.store.put("mine/notes.txt", b"whoever put this here")
    here.store.put(keys.MARKER, b"{}")
    for days in (8, 2):
        here.wait(days)
        here.store.put(keys.runner_heartbeat("live", "1"), b"{}")
        here.prune(known=known)
    left = {head.key for head in here.store.list("")}
    assert not [key for key in left if gone in key or "old" in key]
    assert len([key for key in left if key.startswith("logs/")]) == 2
    assert len([key for key in left if key.startswith("cache/")]) == 2
    assert {"runners/live.1.json", "mine/notes.txt", keys.MARKER} <= left


def test_a_list_can_delete_nothing_that_prune_would_not_condemn(here: Place) -> None:
    here.store.put(keys.MARKER, b"{}")
    here.wait(8)
    condemned.write(here.store, [keys.MARKER, "../outside", "objects/../dstack-store.json", "runners/"], "somebody")
    here.wait(2)
    assert store_pruning.delete(here.store, NOBODY).objects == 0
    assert here.store.head(keys.MARKER)


def test_nothing_is_freed_where_a_set_or_a_list_is_of_a_later_version(here: Place) -> None:
    data = b'{"artifacts":["out"],"version":99}'
    here.store.put(keys.manifest(digest(data)), data)
    with pytest.raises(Invalid, match="later version"):
        here.alive()
    here.store.put("condemned/1", encode(pruning.Condemned(version=99, at=here.clock.now)))
    with pytest.raises(Invalid, match="later version"):
        list(condemned.read(here.store))


def test_a_folder_is_pruned_like_any_store(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = FolderStore(tmp_path / "store")
    place = Place(tmp_path)
    lost, kept = place.save("lost", store), place.save("kept", store)

    def older(days: float) -> None:
        for path in (tmp_path / "store").rglob("*"):
            at = path.stat().st_mtime - days * DAY.total_seconds()
            os.utime(path, (at, at))

    for days in (8, 2):
        older(days)
        alive = store_pruning.living(store, {kept}, NOBODY)
        store_pruning.delete(store, alive)
        condemned.write(store, store_pruning.look(store, alive).fresh, "somebody")
    assert {head.key for head in store.list("manifests/")} == {keys.manifest(kept)}
    assert keys.manifest(lost) not in {head.key for head in store.list("")}
    assert load(store, kept).entries
    assert not list(store.list("condemned/"))


def test_what_a_look_shows_is_what_then_happens(here: Place) -> None:
    here.save("model")
    here.wait(8)
    found = store_pruning.look(here.store, NOBODY)
    assert (found.condemn.objects, found.waiting.objects, found.due.objects) == (2, 0, 0)
    here.prune()
    found = store_pruning.look(here.store, NOBODY)
    assert (found.condemn.objects, found.waiting.objects, found.due.objects) == (0, 2, 0)
    assert found.since == here.clock.now
    here.wait(2)
    found = store_pruning.look(here.store, NOBODY)
    assert (found.condemn.objects, found.waiting.objects, found.due.objects) == (0, 0, 2)
    assert here.prune() == 2


class Aged(S3Store):
    """A bucket on a server whose clock can't be moved: what is there is as many days older as tests say."""

    days: dict[str, float] = {}

    def older(self, days: float) -> None:
        for head in list(super().list("")):
            self.days[head.key] = self.days.get(head.key, 0.0) + days

    def put(self, key: str, data: bytes | Source, *, if_absent: bool = False, sent: Sent = unwatched) -> bool:
        self.days.pop(key, None)
        return super().put(key, data, if_absent=if_absent, sent=sent)

    def head(self, key: str) -> Head | None:
        head = super().head(key)
        return head and self._aged(head)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Head]:
        return (self._aged(head) for head in super().list(prefix, after=after))

    def _aged(self, head: Head) -> Head:
        return head._replace(modified=head.modified - DAY * self.days.get(head.key, 0.0))


def test_a_bucket_is_pruned_like_any_store(here: Place, s3: S3Server) -> None:
    url = s3.url(prefix="some/where")
    store = Aged(parse_place(url), url=url, within="repo-1/")
    store.days = {}
    lost, kept = here.save("lost", store), here.save("kept", store)
    store.put(keys.chunk(keys.log(RUN, "0123456789ab", 1), 0), b"text")
    again: list[bool] = []
    for days in (8, 2, 2):
        store.older(days)
        alive = store_pruning.living(store, {kept}, NOBODY)
        again.append(store_pruning.delete(store, alive).objects > 0)
        condemned.write(store, store_pruning.look(store, alive).fresh, "somebody")
    assert again == [False, True, False]
    assert {head.key for head in store.list("manifests/")} == {keys.manifest(kept)}
    assert load(store, kept).entries
    assert not store.head(keys.manifest(lost))
    assert not [head.key for folder in ("logs/", "condemned/", "deleting/") for head in store.list(folder)]
