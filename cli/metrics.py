"""`dstack metrics`: a row a job, with what tells it from others and what it has measured."""

import csv
import io
from pathlib import Path

import click
import msgspec

from cli.archived import find
from cli.completing import complete_job
from cli.measures import Measure, jobs_of, measure, view_of
from cli.metric_table import Table, line_of, ordered, table_of, waiting_text
from cli.pick import readable
from cli.reading import Reader
from cli.session import open_session
from cli.summaries import load_runs
from cli.table import fitting, show_table
from cli.terminal import clean, is_terminal, say, tell, width
from dstack.model.errors import Invalid
from dstack.model.problems import nearest, shown

EXAMPLE = """\b
Examples:
  dstack metrics fast-rabbit-1                     # a row a job
  dstack metrics fast-rabbit-1 --sort -accuracy    # the best one first
  dstack metrics fast-rabbit-1 slow-fox-2 -w train # one workflow of two runs
  dstack metrics fast-rabbit-1 --csv > sweep.csv"""


@click.command(epilog=EXAMPLE)
@click.argument("names", metavar="RUN|JOB...", nargs=-1, required=True, shell_complete=complete_job)
@click.option("-s", "--sort", metavar="NAME", help="By this metric or variable; -NAME: the largest first.")
@click.option("-r", "--reverse", is_flag=True, help="The other way round: the largest first.")
@click.option("-w", "--workflow", metavar="NAME", help="Only jobs of this workflow.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, with every variable and metric.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(  # noqa: PLR0913 (one for each option)
    folder: Path,
    *,
    names: tuple[str, ...],
    sort: str | None,
    reverse: bool,
    workflow: str | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Show the numbers of the files that workflows name as `metrics`, with the variables that differ."""
    if as_csv and as_json:
        msg = "--csv and --json exclude each other"
        raise click.UsageError(msg)
    jobs = _measured(folder, names, workflow)
    lines = [line_of(one) for one in jobs]
    if sort and lines:
        lines = ordered(lines, sort, reverse=reverse)
    elif reverse:
        lines.reverse()
    if as_json:
        say(msgspec.json.encode(lines).decode())
    elif as_csv:
        say(_csv(table_of(lines, whole=True)))
    elif lines:
        _show(table_of(lines, sort=sort), jobs)


def _measured(folder: Path, names: tuple[str, ...], workflow: str | None) -> list[Measure]:
    """The jobs with metrics of all that is named, each once. Raises Invalid where nothing is named that has any."""
    reader = Reader(open_session(folder))
    seen = reader.session.poll()
    runs = load_runs(reader.session, seen)
    found: dict[str, Measure] = {}
    all_jobs: list[Measure] = []
    for name in names:
        picked = readable(find(reader.session, seen, runs, name), reader.session.remote.name)
        jobs = jobs_of(view_of(reader, seen, picked), picked)
        all_jobs += jobs
        chosen = [one for one in jobs if workflow in (None, one.line.workflow) and one.job.metrics]
        if any(one.line.artifacts for one in chosen):
            measure(seen.store(picked.run.store), chosen)
        found |= {one.line.job: one for one in chosen}
    if not found:
        raise _nothing(all_jobs, workflow)
    return list(found.values())


def _nothing(jobs: list[Measure], workflow: str | None) -> Invalid:
    known = dict.fromkeys(one.line.workflow for one in jobs)
    if workflow is not None and workflow not in known:
        hint = nearest(workflow, known) or f": there is {', '.join(known)}"
        return Invalid(f"no job of these is of a workflow {shown(workflow)}{hint}")
    what = f"the workflow {workflow}" if workflow else f"none of {', '.join(known)}"
    named = "names no `metrics`" if workflow else "names `metrics`"
    return Invalid(f"{what} {named}: list JSON files among its artifacts, like `metrics: [results.json]`")


def _show(table: Table, jobs: list[Measure]) -> None:
    show_table(table.columns, table.rows)
    if is_terminal():
        kept = fitting(table.columns, table.rows, width())
        gone = [
            column.title
            for index, column in enumerate(table.columns)
            if index not in kept and any(row[index] for row in table.rows)
        ]
        if gone:
            tell(f"No room for {clean(', '.join(gone))}: a wider terminal shows them, and --csv.")
    if waiting := waiting_text(jobs):
        tell(clean(waiting))


def _csv(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.title for column in table.columns])
    writer.writerows(table.rows)
    return text.getvalue().rstrip("\n")
