"""The cache in the store: hints are believed only as far as git and the store bear them out, and hold up no turn."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import msgspec
import pytest

from controller.cache import PATIENCE_SECONDS, REMEMBER_SECONDS, TRY_SECONDS, StoreCache
from controller.turn import Controller
from dstack.ledger.memory import MemoryLedger, MemoryRemote
from dstack.model import bucket, keys
from dstack.model import manifest as manifests
from dstack.model.codec import encode
from dstack.model.events import Reused
from dstack.model.manifest import Entry, Manifest
from dstack.model.observation import AppendNotes, RunRecord, SetRegistration
from dstack.model.past import Past
from dstack.model.plan import PlannedJob
from dstack.model.pool import RunnerState
from dstack.model.refs import RunKey
from dstack.model.reuse import Answer, Hint, Lookup, parts_of
from dstack.model.runspec import Code
from dstack.model.states import JobState, RunState
from dstack.model.status import Status
from dstack.model.world import RunView
from dstack.store.memory import MemoryStore
from tests.model_values import ended, finished, moment, planned, registration, run_view
from tests.test_controller import Beating, record, remote, state

TRAIN = planned("train")
URL = "memory:"


@dataclass
class Place:
    """A store with one artifact set, and a run that made it. `away`: the store is."""

    away: bool = False
    seconds: Iterator[float] = field(default_factory=lambda: itertools.repeat(0.0))

    def __post_init__(self) -> None:
        self.store = MemoryStore(away=lambda: self.away)
        self.cache = StoreCache(open_store=lambda _: self.store, clock=lambda: next(self.seconds))
        entries = tuple(self._entry(name) for name in ("a", "b"))
        text = manifests.to_bytes(Manifest(artifacts=("out",), entries=entries))
        self.digest = manifests.digest(text)
        self.store.put(keys.manifest(self.digest), text)
        self.objects = [keys.content(entry.sha256) for entry in entries]
        self.view = _run(TRAIN, self.digest)
        self.lookup = Lookup(store=URL, key=parts_of(TRAIN.job, "1", ()).key)
        self.hint = Hint(run=str(self.view.key), job=TRAIN.id)
        self.store.put(keys.cache(self.lookup.key), encode(self.hint))

    def _entry(self, name: str) -> Entry:
        data = name.encode()
        self.store.put(keys.content(manifests.digest(data)), data)
        return Entry(path=f"out/{name}", size=len(data), sha256=manifests.digest(data))

    def ask(self, now: float = 0.0) -> dict[Lookup, Answer | None]:
        return dict(self.cache.look_up([self.lookup], Past([self.view]), now))

    @property
    def answer(self) -> Answer | None:
        return self.ask().get(self.lookup)


def away() -> Place:
    """Its store has gone since."""
    place = Place()
    place.away = True
    return place


def _run(job: PlannedJob, manifest: str | None, contents: str = "1") -> RunView:
    done = msgspec.structs.replace(finished(), manifest=manifest)
    view = run_view(job, state=RunState(jobs={job.id: JobState(finished=done)}))
    code = Code(commit="c" * 40, snapshot="d" * 40, contents={"train": contents})
    return replace(view, spec=msgspec.structs.replace(view.spec, code=code))


def test_a_hint_that_git_and_the_store_bear_out_is_an_answer() -> None:
    place = Place()
    assert place.answer == Answer(
        run=place.hint.run, job=TRAIN.id, manifest=place.digest, log=keys.log(place.hint.run, TRAIN.id, 1)
    )


def test_a_job_without_artifacts_answers_too() -> None:
    place = Place()
    place.view = _run(TRAIN, None)
    assert place.answer == Answer(run=place.hint.run, job=TRAIN.id, log=keys.log(place.hint.run, TRAIN.id, 1))


def test_without_a_hint_there_is_no_answer() -> None:
    place = Place()
    place.store.delete(keys.cache(place.lookup.key))
    assert place.ask() == {place.lookup: None}


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"run": 1}', b'{"run":"../..","job":"x"}', b"x" * 100_000])
def test_a_broken_hint_is_none(data: bytes) -> None:
    place = Place()
    place.store.put(keys.cache(place.lookup.key), data)
    assert place.ask() == {place.lookup: None}


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_set_of_which_anything_is_gone_answers_nothing(which: int) -> None:
    place = Place()
    place.store.delete([keys.manifest(place.digest), *place.objects][which])
    assert place.ask() == {place.lookup: None}


def test_an_object_that_is_cut_short_is_gone() -> None:
    place = Place()
    place.store.put(place.objects[0], b"")
    assert place.ask() == {place.lookup: None}


def test_a_run_that_is_gone_answers_nothing() -> None:
    place = Place()
    assert place.cache.look_up([place.lookup], Past([]), 0.0) == {place.lookup: None}


def test_a_hint_for_another_key_is_none() -> None:
    """Whoever can write to the store can't make one job stand in for a different one."""
    place = Place()
    place.view = _run(TRAIN, place.digest, contents="2")
    assert place.ask() == {place.lookup: None}


def test_a_store_that_is_away_is_waited_for_and_then_answers_nothing() -> None:
    place = away()
    assert place.ask(0.0) == {}
    assert place.ask(PATIENCE_SECONDS - 0.1) == {}
    assert place.ask(PATIENCE_SECONDS) == {place.lookup: None}
    place.away = False
    assert place.ask(PATIENCE_SECONDS + TRY_SECONDS)[place.lookup] is not None


def test_a_store_that_comes_back_answers() -> None:
    place = away()
    assert place.ask(0.0) == {}
    place.away = False
    assert place.ask(TRY_SECONDS / 2) == {}, "it is not asked all the time"
    assert place.ask(TRY_SECONDS)[place.lookup] is not None


def test_a_turn_takes_no_longer_than_it_may_and_goes_on_where_it_was() -> None:
    place = Place(seconds=iter([0.0, 0.1, 9.0, 100.0, 100.1, 100.2, 100.3]))
    assert place.ask(0.0) == {}
    assert place.cache.reads == 1
    assert place.ask(1.0)[place.lookup] is not None
    assert place.cache.reads == 1


def test_what_was_found_is_not_asked_for_again_for_a_while() -> None:
    place = Place()
    assert place.answer is not None
    for key in (keys.cache(place.lookup.key), *place.objects):
        place.store.delete(key)
    assert place.answer is not None
    assert place.ask(REMEMBER_SECONDS + 1) == {place.lookup: None}


def test_what_has_become_done_is_written_down() -> None:
    place, new = Place(), Lookup(store=URL, key="f" * 64)
    place.cache.keep({new: Answer(run="run-2.aaaaaaaaaaaa", job="b" * 12)}, 0.0)
    data = place.store.get(keys.cache(new.key), limit=1000)
    assert data is not None
    assert msgspec.json.decode(data, type=Hint) == Hint(run="run-2.aaaaaaaaaaaa", job="b" * 12)


def test_a_hint_that_cannot_be_written_harms_nothing() -> None:
    place = away()
    place.cache.keep({place.lookup: Answer(run="run-2.aaaaaaaaaaaa", job="b" * 12)}, 0.0)


# With a controller


CHAIN = b"""workflows:
- {name: prepare, commands: x}
- {name: train, commands: x, depends-on: [prepare]}
"""


def chain(name: str, root: str) -> RunRecord:
    """A run of two jobs, the digests of whose files are known."""
    one = record(name, CHAIN, root)
    code = Code(commit="c" * 40, snapshot="d" * 40, contents={"prepare": "1", "train": "2"})
    return replace(one, spec=msgspec.structs.replace(one.spec, code=code))


def controller(made: MemoryRemote, cache: StoreCache) -> Controller:
    return Controller(
        ledger=MemoryLedger(made),
        pulse=Beating("otter"),
        store=URL,
        cache=cache,
        entropy=itertools.count().__repr__,
        jitter=lambda: 0.5,
        bucket=bucket.Bucket.full(interval=0.001, burst=100, now=0.0),
    )


def test_a_second_run_is_reused_whole_in_one_push_with_a_look_for_each_job() -> None:
    made, store = remote(chain("run-1", "a" * 40)), MemoryStore()
    cache = StoreCache(open_store=lambda _: store)
    one = controller(made, cache)
    for turn in range(3):
        one.step(moment(turn * 2.0))
        _end_all(made)
        one.step(moment(turn * 2.0 + 1))
    first = state(made)
    assert first.finished
    assert cache.reads == 2
    made.add_run(chain("run-2", "b" * 40))
    other = StoreCache(open_store=lambda _: store)
    pushes = made.pushes
    controller(made, other).step(moment(100.0))
    second = state(made, "run-2")
    assert second.finished
    assert second.finished.status is Status.DONE
    assert made.pushes == pushes + 1
    assert other.reads == 2
    ends = [one.finished for one in second.jobs.values()]
    assert all(isinstance(end, Reused) and end.run == f"run-1.{'a' * 12}" for end in ends)


def test_two_equal_runs_at_once_both_run() -> None:
    made, store = remote(chain("run-1", "a" * 40), chain("run-2", "b" * 40)), MemoryStore()
    one = controller(made, StoreCache(open_store=lambda _: store))
    for turn in range(3):
        one.step(moment(turn * 2.0))
        _end_all(made)
        one.step(moment(turn * 2.0 + 1))
    for name in ("run-1", "run-2"):
        jobs = state(made, name).jobs.values()
        assert [(str(job.outcome), len(job.attempts)) for job in jobs] == [("DONE", 1), ("DONE", 1)]


def test_a_job_that_waits_for_a_runner_is_looked_up_once_and_answered_by_one_that_is_done_meanwhile() -> None:
    made, store = remote(chain("run-1", "a" * 40)), MemoryStore()
    cache = StoreCache(open_store=lambda _: store)
    one = controller(made, cache)
    one.step(moment(0.0))
    one.step(moment(1.0))
    made.add_run(chain("run-2", "b" * 40))
    _drain(made)
    for turn in range(5):
        one.step(moment(2.0 + turn))
    assert cache.reads == 2
    _end_all(made)
    one.step(moment(10.0))
    one.step(moment(11.0))
    (job,) = [job for job in state(made, "run-2").jobs.values() if job.finished]
    assert isinstance(job.finished, Reused)
    assert not job.attempts


def test_a_run_while_the_store_is_away_runs_after_a_while() -> None:
    made = remote(chain("run-1", "a" * 40))
    store = MemoryStore(away=lambda: True)
    one = controller(made, StoreCache(open_store=lambda _: store))
    for seconds in (0.0, 1.0, 2.0):
        one.step(moment(seconds))
    assert not state(made).jobs
    one.step(moment(3.0 + PATIENCE_SECONDS))
    assert len(state(made).jobs) == 1


def _drain(made: MemoryRemote) -> None:
    """Its one runner takes no more."""
    ledger = MemoryLedger(made)
    change = SetRegistration(registration=registration(state=RunnerState.DRAINING))
    assert ledger.commit([change], ledger.observe(), atomic=False).won


def _end_all(made: MemoryRemote) -> None:
    """The runner reports that all it holds is DONE."""
    ledger = MemoryLedger(made)
    seen = ledger.observe()
    held = seen.assignments.get("otter")
    if held is None:
        return
    for key, attempt in held.attempts.items():
        claims = {held.jobs[key]: (ended(attempt.attempt, seq=1, nonce=attempt.nonce),)}
        change = AppendNotes(key=RunKey.from_text(attempt.run), writer="otter", events=claims)
        assert ledger.commit([change], ledger.observe(), atomic=False).won
