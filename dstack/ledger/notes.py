"""Notes trees: one note per object, fanned out as `ab/cdef…`, and in a controller's tree the job objects under `jobs/`.

A note is read once: what an unchanged subtree says is remembered, so a poll costs what has changed.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from dstack.ledger.objects import FILE, FOLDER, Entry, Objects, Tree
from dstack.model.errors import Invalid
from dstack.model.events import (
    Event,
    Parsed,
    parse_controller_note,
    parse_root_note,
    parse_runner_note,
    to_line,
)
from dstack.model.observation import AppendNotes, Notes
from dstack.model.refs import CONTROLLER, RunKey

NOTE_LIMIT = 16 * 1024 * 1024
JOBS = b"jobs"

_SHARD = re.compile(rb"[0-9a-f]{2}")
_REST = re.compile(rb"[0-9a-f]{38}")
_WHOLE = re.compile(rb"[0-9a-f]{40}")
_JOB = re.compile(rb"[0-9a-f]{12}")
_PROBLEMS = 20

Parser = Callable[[str, bytes], Parsed]


@dataclass(frozen=True, slots=True)
class _Shard:
    """A subtree as read: each note with the id of the blob it was parsed from."""

    oid: str = ""
    notes: Mapping[str, tuple[str, Parsed]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Memory:
    """All that was read of one notes ref, for its next version."""

    shards: Mapping[bytes, _Shard] = field(default_factory=dict)
    jobs_oid: str = ""
    jobs: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class NotesReader:
    """Reads notes refs, remembering for each the version read last. `keep` drops what is no longer there."""

    _memory: dict[tuple[RunKey, str], _Memory] = field(default_factory=dict)

    def read(self, objects: Objects, key: RunKey, writer: str, oid: str) -> Notes:
        """The notes of `writer` at the commit `oid`. What can't be read is left out and told in `problem`."""
        try:
            root = objects.tree(objects.commit(oid).tree)
        except Invalid as error:
            return Notes(oid=oid, notes={}, problem=str(error))
        old = self._memory.get((key, writer), _Memory())
        memory, problems = _read_tree(objects, root, old, _parser(key, writer))
        self._memory[key, writer] = memory
        problems += [problem for shard in memory.shards.values() for problem in shard.problems]
        notes = {target: parsed for shard in memory.shards.values() for target, (_, parsed) in shard.notes.items()}
        return Notes(oid=oid, notes=notes, jobs=memory.jobs, problem="; ".join(islice(problems, _PROBLEMS)))

    def keep(self, live: set[tuple[RunKey, str]]) -> None:
        """Forget all refs but these."""
        for gone in self._memory.keys() - live:
            del self._memory[gone]


def append(objects: Objects, change: AppendNotes, base: str | None) -> str:
    """The id of a new notes commit on top of `base`. Touches the notes appended to, their subtrees and the root alone.

    Raises Invalid where what is there isn't a notes tree, Damaged.
    """
    root = dict(objects.tree(objects.commit(base).tree)) if base else {}
    shards = {name: dict(_subtree(objects, root, name)) for name in {one[:2].encode() for one in change.events}}
    texts: dict[bytes, bytes] = {}
    for target, events in change.events.items():
        name = target.encode()
        old = root.pop(name, None) or shards[name[:2]].get(name[2:])
        texts[name] = _appended(objects, old, events)
    for name, oid in zip(texts, objects.write_blobs(tuple(texts.values())), strict=True):
        shards[name[:2]][name[2:]] = Entry(FILE, oid)
    root |= {name: Entry(FOLDER, objects.write_tree(shard)) for name, shard in shards.items()}
    if change.jobs:
        root[JOBS] = Entry(FOLDER, _with_jobs(objects, root, change.jobs))
    return objects.write_commit(objects.write_tree(root), [base] if base else [], _message(change))


def _appended(objects: Objects, old: Entry | None, events: tuple[Event, ...]) -> bytes:
    data = objects.blob(old.oid, "note", limit=NOTE_LIMIT) if old else b""
    # A line that someone left without its end must not swallow the next one.
    end = b"\n" if data and not data.endswith(b"\n") else b""
    return data + end + b"".join(to_line(event) for event in events)


def _with_jobs(objects: Objects, root: Tree, jobs: Mapping[str, bytes]) -> str:
    ids = objects.write_blobs(tuple(jobs.values()))
    return objects.write_tree({**_subtree(objects, root, JOBS), **{i[:12].encode(): Entry(FILE, i) for i in ids}})


def _subtree(objects: Objects, root: Tree, name: bytes) -> Tree:
    return objects.tree(root[name].oid) if name in root else {}


def _message(change: AppendNotes) -> str:
    """What happened, for people who look at the history of the notes."""
    told = [event.message for events in change.events.values() for event in events if event.message]
    count = sum(len(events) for events in change.events.values())
    more = f"\n\n{count} events on {len(change.events)} objects of {change.key} by {change.writer}"
    return (told[0].splitlines()[0][:100] if told else f"{count} events of {change.key.name}") + more


def _read_tree(objects: Objects, root: Tree, old: _Memory, parse: Parser) -> tuple[_Memory, list[str]]:
    shards: dict[bytes, _Shard] = {}
    problems: list[str] = []
    flat: dict[bytes, Entry] = {}
    for name, entry in root.items():
        if _SHARD.fullmatch(name) and entry.folder:
            shards[name] = _read_shard(objects, (name, entry), old.shards.get(name, _Shard()), parse)
        elif _WHOLE.fullmatch(name):
            flat[name] = entry
    if flat:
        # `git notes`, used by hand, writes a small tree without the fan-out.
        shards[b""] = _read_notes(objects, (b"", flat), old.shards.get(b"", _Shard()), parse)
    jobs_oid, jobs = old.jobs_oid, old.jobs
    if (found := root[JOBS].oid if JOBS in root else "") != jobs_oid:
        jobs_oid, jobs = found, _read_jobs(objects, found, problems)
    return _Memory(shards, jobs_oid, jobs), problems


def _read_shard(objects: Objects, named: tuple[bytes, Entry], old: _Shard, parse: Parser) -> _Shard:
    name, entry = named
    if entry.oid == old.oid:
        return old
    try:
        tree = objects.tree(entry.oid)
    except Invalid as error:
        return _Shard(entry.oid, {}, (str(error),))
    read = _read_notes(objects, (name, {k: v for k, v in tree.items() if _REST.fullmatch(k)}), old, parse)
    return _Shard(entry.oid, read.notes, read.problems)


def _read_notes(objects: Objects, named: tuple[bytes, Tree], old: _Shard, parse: Parser) -> _Shard:
    prefix, tree = named
    notes: dict[str, tuple[str, Parsed]] = {}
    problems: list[str] = []
    for name, entry in tree.items():
        target = (prefix + name).decode()
        known = old.notes.get(target)
        if known is None or known[0] != entry.oid:
            known = (entry.oid, _read_note(objects, target, entry, parse))
        notes[target] = known
        problems += [f"note on {target[:12]}: {problem}" for problem in known[1].problems]
    return _Shard("", notes, tuple(problems))


def _read_note(objects: Objects, target: str, entry: Entry, parse: Parser) -> Parsed:
    try:
        return parse(target, objects.blob(entry.oid, "note", limit=NOTE_LIMIT))
    except Invalid as error:
        return Parsed(problems=(str(error),))


def _read_jobs(objects: Objects, oid: str, problems: list[str]) -> dict[str, str]:
    if not oid:
        return {}
    try:
        tree = objects.tree(oid)
    except Invalid as error:
        problems.append(str(error))
        return {}
    named = {name.decode(): entry.oid for name, entry in tree.items() if _JOB.fullmatch(name)}
    right = {name: job for name, job in named.items() if job.startswith(name)}
    if len(right) < len(tree):
        problems.append(f"{len(tree) - len(right)} entries of jobs/ are no job objects under their own id")
    return right


def _parser(key: RunKey, writer: str) -> Parser:
    if writer != CONTROLLER:
        return lambda _, data: parse_runner_note(data)
    return lambda target, data: (parse_root_note if target.startswith(key.root12) else parse_controller_note)(data)
