"""Which runs give up their artifacts, and what must stay in the store for all the others."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from cli.archived import open_archive
from cli.lines import RunLine
from cli.reading import Reader
from cli.session import Seen
from cli.summaries import load_runs
from dstack.ledger import mentions
from dstack.ledger.archive import Archive
from dstack.ledger.push import RefUpdate
from dstack.ledger.submit import refusal
from dstack.model import archive, pruning, refs
from dstack.model.archive import ArchivedRun
from dstack.model.errors import Conflict
from dstack.model.observation import Observation, Outcome, Pushed
from dstack.model.pruning import Living
from dstack.model.refs import RunKey
from dstack.model.world import RunView, World
from dstack.store import pruning as store_pruning
from dstack.store.store import Store

_NONE: Collection[RunKey] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Whose runs (None: everyone's), and how long they must have ended."""

    me: str | None
    age: timedelta
    now: datetime

    def takes(self, line: RunLine) -> bool:
        """Whether it frees this run; that it is finished and has no tag is asked elsewhere."""
        mine = self.me is None or line.submitted_by == self.me
        return mine and line.finished_at is not None and self.now - line.finished_at > self.age


@dataclass(slots=True, kw_only=True)
class Refs:
    """What the state remote holds at one time: live runs and the archive."""

    reader: Reader
    seen: Seen
    archive: Archive
    archived: Mapping[RunKey, ArchivedRun]
    tagged: frozenset[str]
    memory: dict[str, set[str]] = field(default_factory=dict)

    def leaving(self, choice: Choice) -> list[ArchivedRun]:
        """The runs to archive, as freed: none that is tagged, assigned or resumed."""
        lines = [line for line in load_runs(self.reader.session, self.seen) if line.finished and choice.takes(line)]
        names = [line.run for line in lines if line.root not in self.tagged and not line.problem]
        if not names:
            return []
        observation = self.reader.observation(self.seen, names, pool=True)
        views = self.reader.views(observation)
        world = world_of(observation, views)
        left = [view for view in views if archive.may_leave(view, world, observation)]
        return [msgspec.structs.replace(archive.archived(view, observation), freed=True) for view in left]

    def freed(self, choice: Choice) -> list[ArchivedRun]:
        """The runs in the archive that keep their artifacts so far."""
        untagged = (run for run in self.archived.values() if not run.freed and run.line.root not in self.tagged)
        return [msgspec.structs.replace(run, freed=True) for run in untagged if choice.takes(run.line)]

    def living(self, store: Store, without: Collection[RunKey] = _NONE) -> Living:
        """What must stay in the store, if these runs were freed. Raises Invalid, Unavailable, Failed."""
        objects, found = self.reader.session.cache.objects, self.seen.found
        names = {name for ref in found if (name := refs.parse_run_branch(ref))}
        notes = {parsed[0] for ref in found if (parsed := refs.parse_note(ref))}
        leaving = {refs.run_branch(key.name) for key in without if key in notes}
        kept = {
            ref: oid
            for ref, oid in found.items()
            if ref not in leaving and not ((parsed := refs.parse_note(ref)) and parsed[0] in without)
        }
        digests = mentions.digests(objects, kept, self.memory)
        whole = [key for key, run in self.archived.items() if self._is_kept(run) and key not in without]
        for key in whole:
            digests |= pruning.mentioned(archive.to_bytes(self.archived[key]))
        known = Living(
            contents=frozenset(),
            runs=frozenset(map(str, {*notes, *self.archived})),
            active=frozenset(map(str, notes - set(without))),
            reusable=frozenset(map(str, {*(notes - set(without)), *whole})),
            names=frozenset(names - {key.name for key in without if key in notes}),
        )
        return store_pruning.living(store, digests, known)

    def _is_kept(self, run: ArchivedRun) -> bool:
        return not run.freed or run.line.root in self.tagged


def read_refs(reader: Reader) -> Refs:
    """All of it as it is now: first what lives, so that nothing is missed that leaves meanwhile. Raises Invalid."""
    seen = reader.session.poll()
    found = open_archive(reader.session)
    archived = {key: found.read(oid) for key, oid in found.runs().items()}
    tagged = frozenset(mentions.tagged(reader.session.cache.objects, seen.found))
    return Refs(reader=reader, seen=seen, archive=found, archived=archived, tagged=tagged)


def world_of(observation: Observation, views: tuple[RunView, ...]) -> World:
    """A world in which it can be asked whether a run may leave."""
    return World(
        repository=observation.repository or "",
        store="",
        runs=views,
        assignments=observation.assignments,
        entropy="none",
    )


def free(now: Refs, choice: Choice) -> list[RunKey]:
    """Archive the runs and mark them; returns whose artifacts nothing keeps any more. Raises Conflict, Failed."""
    done: list[RunKey] = []
    left = now.leaving(choice)
    while left:
        some = archive.bounded(left)
        check(now.archive.add(some), now.reader.session.remote.url)
        done += [run.key for run in some]
        left = left[len(some) :]
    marked = now.freed(choice)
    if marked:
        check(now.archive.change(marked), now.reader.session.remote.url)
    return [*done, *(run.key for run in marked)]


def push(reader: Reader, updates: list[RefUpdate]) -> None:
    """All or nothing. Raises Conflict, Unavailable, Failed."""
    check(reader.session.cache.push(updates, atomic=True), reader.session.remote.url)


def check(pushed: Pushed, url: str) -> None:
    """Raises Conflict where somebody was quicker, Failed where the remote refuses."""
    if pushed.won:
        return
    if Outcome.LOST in pushed.outcomes.values():
        msg = "a run, a tag or the archive has changed meanwhile: nothing was changed by this step; try again"
        raise Conflict(msg)
    raise refusal(pushed, url)
