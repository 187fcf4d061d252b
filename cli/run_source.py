"""The run that `dstack run --from` takes its code and variables from."""

from dataclasses import dataclass
from pathlib import Path

from cli.archived import find, with_archived
from cli.definitions import Definitions
from cli.pick import readable
from cli.reading import Reader
from cli.run_options import RunOptions
from cli.session import Seen, Session, open_session
from cli.summaries import load_runs
from dstack.ledger.codediff import bring
from dstack.ledger.snapshot import Snapshot, taken_before
from dstack.model.errors import Invalid
from dstack.model.observation import RunRecord
from dstack.model.refs import RunKey
from dstack.model.runspec import RunSpec
from dstack.model.variables import parse_variables
from dstack.model.workflows import parse_workflows


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The run, and its code."""

    key: RunKey
    spec: RunSpec
    snapshot: Snapshot


def definitions_of(folder: Path, name: str) -> tuple[Definitions, str]:
    """The workflows and variables that a run was submitted with, and its workflow. Raises Invalid, Failed."""
    session = open_session(folder)
    record, _ = _record(session, session.poll(), name)
    workflows = parse_workflows(record.workflows, allow_env=None)
    variables = parse_variables(record.variables, workflows)
    return Definitions(code=session.code, workflows=workflows, variables=variables), record.spec.workflow


def source_of(session: Session, seen: Seen, options: RunOptions) -> Source | None:
    """What --from names, its code fetched; None without it. Raises Invalid, Failed, Unavailable."""
    if options.source is None:
        return None
    if options.only_committed or options.no_untracked or options.include:
        msg = "--from takes the code as it was: leave out --only-committed, --no-untracked and --include"
        raise Invalid(msg)
    record, archived = _record(session, seen, options.source)
    key = RunKey.of(record.name, record.root)
    bring(session.cache, session.code, key, record.spec.code.snapshot, archived=archived)
    snapshot = taken_before(session.code, session.cache.objects, record.spec.code, record.name)
    return Source(key=key, spec=record.spec, snapshot=snapshot)


def _record(session: Session, seen: Seen, name: str) -> tuple[RunRecord, bool]:
    """The run of this name, and whether it is archived."""
    line = readable(find(session, seen, load_runs(session, seen), name, jobs=False), session.remote.name).run
    run = line.run
    if line.archived:
        seen = with_archived(session, seen, line.key) or seen
    found = Reader(session).observation(seen, [run]).runs[run]
    if not isinstance(found, RunRecord):
        msg = f"{run} can't be run again: {found.problem}"
        raise Invalid(msg)
    return found, line.archived
