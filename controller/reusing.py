"""Decides with what the cache answers: look up, decide again, and tell the cache what has become DONE."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from dstack.model import refs
from dstack.model.decide import Decisions, decide
from dstack.model.observation import Change
from dstack.model.past import Past
from dstack.model.refs import CONTROLLER, RunKey
from dstack.model.resuming import Pointer
from dstack.model.reuse import Answer, Lookup
from dstack.model.world import Moment, World

# A pipeline that is reused takes a round for each job that waits for another; a longer one goes on in the next turn.
ROUNDS = 50


class Cache(Protocol):
    """What answers keys of jobs."""

    def look_up(self, lookups: Iterable[Lookup], past: Past, now: float) -> Mapping[Lookup, Answer | None]:
        """What is known of these keys by now; what is left out is to be asked again."""
        ...

    def keep(self, answers: Mapping[Lookup, Answer], now: float) -> None:
        """Remember which jobs answer these keys."""
        ...

    def find_sets(self, pointers: Iterable[Pointer], now: float) -> Mapping[Pointer, str | None]:
        """The whole artifact sets that these lead to, None where there is none; what is left out is asked again."""
        ...


class NoCache:
    """Nothing is ever reused."""

    def look_up(self, lookups: Iterable[Lookup], _past: Past, _now: float) -> Mapping[Lookup, Answer | None]:
        """None of them."""
        return dict.fromkeys(lookups)

    def keep(self, answers: Mapping[Lookup, Answer], now: float) -> None:
        """Forget them."""

    def find_sets(self, pointers: Iterable[Pointer], _now: float) -> Mapping[Pointer, str | None]:
        """None of them."""
        return dict.fromkeys(pointers)


@dataclass(slots=True)
class Reuse:
    """The memory of one controller: which of the jobs that wait nothing answers."""

    cache: Cache
    _missed: dict[str, Lookup] = field(default_factory=dict)
    _answers: Mapping[Lookup, Answer] = field(default_factory=dict)

    def decide(self, world: World, now: Moment) -> Decisions:
        """All that can be decided now. Jobs that are not known about yet stay in `lookups`."""
        known: dict[str, Answer | None] = dict.fromkeys(self._missed)
        sets: dict[Pointer, str | None] = {}
        decisions = decide(replace(world, cache=known, sets=sets), now)
        past: Past | None = None
        for _ in range(ROUNDS):
            if not decisions.lookups and not decisions.pointers:
                break
            past = past or Past(world.runs)
            found = self.cache.look_up(decisions.lookups.values(), past, now.ticks)
            news = {oid: lookup for oid, lookup in decisions.lookups.items() if lookup in found}
            there = self.cache.find_sets(decisions.pointers, now.ticks) if decisions.pointers else {}
            if not news and not there:
                break
            known.update({oid: found[lookup] for oid, lookup in news.items()})
            sets.update(there)
            self._missed.update({oid: lookup for oid, lookup in news.items() if found[lookup] is None})
            decisions = decide(replace(world, cache=known, sets=sets), now)
        self._missed = {oid: lookup for oid, lookup in self._missed.items() if oid in decisions.unsure}
        self._answers = decisions.answers
        return decisions

    def accepted(self, changes: Iterable[Change], now: Moment) -> None:
        """These of the last decisions are on the remote: what they finish answers others from now on."""
        there = {change.ref for change in changes}
        news = {lookup: one for lookup, one in self._answers.items() if _note(one) in there}
        if news:
            self._missed = {oid: lookup for oid, lookup in self._missed.items() if lookup not in news}
            self.cache.keep(news, now.ticks)


def _note(answer: Answer) -> str:
    return refs.note(RunKey.from_text(answer.run), CONTROLLER)
