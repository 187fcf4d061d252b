"""`dstack tags`: all tags, and what they name."""

from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from cli.ago import ago
from cli.archived import open_archive
from cli.lines import RunLine
from cli.session import Seen, Session, open_session
from cli.summaries import load_runs
from cli.table import Column, show_table
from cli.tagging import known_tags, tagged
from cli.terminal import say, tell
from dstack.ledger.archive import summaries
from dstack.model.errors import Invalid
from dstack.model.refs import RunKey
from dstack.model.tags import TaggedFiles

EXAMPLE = """\b
Example:
  dstack tags --json | jq -r '.[].tag'"""

COLUMNS = (
    Column(title="TAG", least=12),
    Column(title="RUN", least=12),
    Column(title="WORKFLOW", rank=4),
    Column(title="STATUS", rank=5),
    Column(title="USER", rank=2),
    Column(title="SUBMITTED", least=10, rank=3),
    Column(title="FILES", rank=9),
)


class TagLine(msgspec.Struct, frozen=True, kw_only=True):
    """`tags --json`. `run` is None where it holds files of `folder`; `problem` says why it names nothing."""

    tag: str
    id: str
    run: str | None = None
    root: str | None = None
    workflow: str = ""
    status: str | None = None
    folder: str | None = None
    by: str = ""
    at: datetime | None = None
    problem: str = ""


@click.command(epilog=EXAMPLE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(folder: Path, *, as_json: bool) -> None:
    """List all tags."""
    session = open_session(folder)
    seen = session.poll()
    runs = {run.root: run for run in load_runs(session, seen) if run.root}
    if any(oid not in runs for oid in known_tags(seen).values()):
        archive = open_archive(session)
        tagged_keys = {key for key in archive.runs() if _is_tagged(seen, key)}
        runs = {run.line.root: run.line for run in summaries(archive, tagged_keys)} | runs
    lines = [_line(session, seen, runs, tag) for tag in known_tags(seen)]
    if as_json:
        say(msgspec.json.encode(lines).decode())
    elif lines:
        show_table(COLUMNS, [_row(line, datetime.now(UTC)) for line in lines])
    else:
        tell("There are no tags: `dstack tag RUN` makes one.")


def _is_tagged(seen: Seen, key: RunKey) -> bool:
    return any(oid.startswith(key.root12) for oid in known_tags(seen).values())


def _line(session: Session, seen: Seen, runs: dict[str, RunLine], tag: str) -> TagLine:
    oid = known_tags(seen)[tag]
    try:
        what = tagged(session, seen, tag)
    except Invalid as error:
        return TagLine(tag=tag, id=oid, problem=str(error))
    if isinstance(what, TaggedFiles):
        return TagLine(tag=tag, id=oid, folder=what.folder, by=what.tagged_by, at=what.tagged_at)
    run = runs.get(what.root)
    if run is None:
        return TagLine(tag=tag, id=oid, run=what.run, root=what.root)
    return TagLine(
        tag=tag,
        id=oid,
        run=run.run,
        root=run.root,
        workflow=run.workflow,
        status=str(run.status) if run.status else None,
        by=run.submitted_by,
        at=run.submitted_at,
    )


def _row(line: TagLine, now: datetime) -> list[str]:
    user = line.by.partition(" <")[0] or line.by
    shown = line.problem or line.folder or ""
    return [line.tag, line.run or "", line.workflow, line.status or "", user, ago(line.at, now), shown]
