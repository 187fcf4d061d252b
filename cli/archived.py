"""Archived runs as commands read them: fetched only when asked for, found by name, and read like any other run."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import msgspec

from cli.lines import RunLine
from cli.pick import Picked, candidates, pick
from cli.session import Seen, Session
from dstack.ledger.archive import Archive, bring, summaries
from dstack.model import refs
from dstack.model.archive import ArchivedRun, newest
from dstack.model.refs import RunKey

# Of so many at most that begin alike: who writes no more of the name is told some of them.
SOME = 20


def open_archive(session: Session) -> Archive:
    """The archive as it is now. Raises Unavailable, Failed."""
    found = Archive(session.again().cache)
    found.look()
    return found


def find(session: Session, seen: Seen, runs: Sequence[RunLine], word: str, *, jobs: bool = True) -> Picked:
    """As `pick`, among archived runs too, unless the word is the whole name of one that isn't. Raises Invalid."""
    here = list(candidates(word, runs, jobs=jobs))
    if not word or any(one.exact for one in here):
        return pick(word, runs, jobs=jobs)
    archive = open_archive(session)
    keys = archive.runs()
    exact = [key for key in keys if word in (key.name, str(key))]
    near = exact or [key for key in keys if key.name.startswith(word)][:SOME]
    lines = newest(_line(run, seen) for run in summaries(archive, near))
    if jobs and not here and not lines:
        # It may be a job: their ids stand in the summaries alone.
        lines = [line for line in archived_lines(archive, seen) if any(one.job.startswith(word) for one in line.jobs)]
    known = {line.run for line in runs}
    return pick(word, [*runs, *(line for line in lines if exact or line.run not in known)], jobs=jobs)


def archived_lines(archive: Archive, seen: Seen) -> list[RunLine]:
    """All of them, but those that aren't gone yet."""
    there = {name for ref in seen.found if (name := refs.parse_run_branch(ref))}
    keys = [key for key in archive.runs() if key.name not in there or not _is_here(seen, key)]
    return [_line(run, seen) for run in summaries(archive, keys)]


def with_archived(session: Session, seen: Seen, key: RunKey) -> Seen | None:
    """What was seen, as if the archived run had not left; None where there is none. Raises Unavailable, Failed."""
    run = open_archive(session).find(key)
    if run is None:
        return None
    bring(session.cache, run)
    return replace(seen, found={**seen.found, **run.refs})


def _is_here(seen: Seen, key: RunKey) -> bool:
    return any(parsed and parsed[0] == key for parsed in map(refs.parse_note, seen.found))


def _line(run: ArchivedRun, seen: Seen) -> RunLine:
    return msgspec.structs.replace(run.line, archived=True, tags=tuple(_tags(seen, run.line.root)))


def _tags(seen: Seen, root: str) -> Iterable[str]:
    return sorted(tag for ref, oid in seen.found.items() if oid == root and (tag := refs.parse_tag(ref)))
