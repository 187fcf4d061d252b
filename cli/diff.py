"""`dstack diff`: what differs between two runs or jobs, or between one and the work tree."""

import difflib
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import click
import msgspec

from cli.completing import complete_job
from cli.reading import Reader
from cli.session import Session, open_session
from cli.sides import Side, SideLine, compared, run_side, work_tree_side
from cli.summaries import load_runs
from cli.table import Column, show_table
from cli.terminal import clean, coloured, is_terminal, say, tell, width
from dstack.ledger import codediff
from dstack.model.comparing import Changed, Comparison, MetricChange, OneSided
from dstack.model.metrics import Measured, change_text, number_text

EXAMPLE = """\b
Examples:
  dstack diff fast-rabbit-1 slow-fox-2   # code, variables, definitions, metrics
  dstack diff fast-rabbit-1              # against what would run now
  dstack diff 3f2a81c0 9d5e7b12          # two jobs: the best and the worst of a sweep
  dstack diff fast-rabbit-1 -p           # with the patch"""

WIDTH = 100
SHOWN = 3
CHANGES = (
    Column(title="WORKFLOW", least=8, rank=5),
    Column(title="NAME", least=12),
    Column(title="BEFORE", least=16),
    Column(title="AFTER", least=16),
)
METRICS = (
    Column(title="JOB", least=16, rank=5),
    Column(title="NAME", least=12),
    Column(title="BEFORE", least=9),
    Column(title="AFTER", least=9),
    Column(title="CHANGE", least=9),
)
_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


class CodeChange(msgspec.Struct, frozen=True, kw_only=True):
    """A file that differs, in `diff --json`; of a binary one both numbers are null."""

    file: str
    added: int | None
    deleted: int | None


class DiffDocument(msgspec.Struct, frozen=True, kw_only=True):
    """`diff --json`."""

    before: SideLine
    after: SideLine
    code: tuple[CodeChange, ...]
    variables: tuple[Changed, ...]
    definitions: tuple[Changed, ...]
    metrics: tuple[MetricChange, ...]
    jobs: tuple[OneSided, ...]


@click.command(epilog=EXAMPLE)
@click.argument("first", metavar="RUN|JOB", shell_complete=complete_job)
@click.argument("second", metavar="[RUN|JOB]", required=False, shell_complete=complete_job)
@click.option("-p", "--patch", is_flag=True, help="The changed lines of the code, and not only how many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(folder: Path, *, first: str, second: str | None, patch: bool, as_json: bool) -> None:
    """Show what differs: code, variables, workflow definitions and metrics. One RUN: against the work tree."""
    reader = Reader(open_session(folder))
    seen = reader.session.poll()
    runs = load_runs(reader.session, seen)
    before = run_side(reader, seen, runs, first)
    after = run_side(reader, seen, runs, second) if second else work_tree_side(reader, seen, before.line.workflow)
    found = compared(before, after)
    if as_json:
        say(msgspec.json.encode(_document(reader.session, before, after, found)).decode())
        return
    _show(reader.session, before, after, found, patch=patch)


def _document(session: Session, before: Side, after: Side, found: Comparison) -> DiffDocument:
    files = codediff.changes(session.cache, before.line.snapshot, after.line.snapshot)
    return DiffDocument(
        before=before.line,
        after=after.line,
        code=tuple(CodeChange(file=one.file, added=one.added, deleted=one.deleted) for one in files),
        variables=found.variables,
        definitions=found.definitions,
        metrics=found.metrics,
        jobs=found.jobs,
    )


def _show(session: Session, before: Side, after: Side, found: Comparison, *, patch: bool) -> None:
    say(_bold(f"{clean(before.title)} → {clean(after.title)}"))
    same = []
    old, new = before.line.snapshot, after.line.snapshot
    columns = width() if is_terminal() else WIDTH
    code = codediff.patch(session.cache, old, new) if patch else codediff.stat(session.cache, old, new, columns)
    if code:
        _title("Code")
        for line in code.split("\n"):
            say(_patch_line(line) if patch else clean(line))
    else:
        same.append("code")
    if found.variables:
        _title("Variables")
        _show_changes(found.variables)
    else:
        same.append("variables")
    if found.definitions:
        _title("Workflow definitions")
        for line in definition_lines(found.definitions):
            say(_coloured_line(line))
    else:
        same.append("definitions")
    silent = silent_jobs(before, after)
    told = [one for one in found.metrics if one.job not in silent]
    if told:
        _title("Metrics")
        _show_metrics(told, titled=not (before.single or after.single))
    elif not found.metrics and any(one.metrics for one in (*before.jobs, *after.jobs)):
        same.append("metrics")
    if silent:
        more = f" and {len(silent) - SHOWN} more" if len(silent) > SHOWN else ""
        tell(f"\nOnly one side has metrics of {clean(', '.join(sorted(silent)[:SHOWN]))}{more}.")
    _show_jobs(before, after, found.jobs)
    if same:
        tell(f"\nThe same: {', '.join(same)}.")


def silent_jobs(before: Side, after: Side) -> set[str]:
    """Titles of the jobs that both sides have and of which one has measured nothing: it hasn't run, or has failed."""
    if before.single or after.single:
        return set()
    found = {one.place: one for one in after.jobs}
    pairs = ((one, found[one.place]) for one in before.jobs if one.place in found)
    return {one.job.title for one, other in pairs if bool(one.metrics) is not bool(other.metrics)}


def _show_changes(changes: Sequence[Changed]) -> None:
    show_table(CHANGES, [(one.workflow, one.name, _or_none(one.before), _or_none(one.after)) for one in changes])


def _show_metrics(changes: Sequence[MetricChange], *, titled: bool) -> None:
    """`titled`: with the job of each; of two jobs the heading has said which they are."""
    first = 0 if titled else 1
    rows = [(one.job, one.name, _number(one.before), _number(one.after), _change(one)) for one in changes]
    show_table(METRICS[first:], [row[first:] for row in rows])


def _show_jobs(before: Side, after: Side, jobs: Sequence[OneSided]) -> None:
    for side, title in (("before", before.title), ("after", after.title)):
        alone = [one.job for one in jobs if one.side == side]
        if alone:
            _title(f"Only in {title}")
            say(clean(", ".join(alone)))


def definition_lines(changes: Sequence[Changed]) -> Iterator[str]:
    """By workflow and key, the lines that differ, after `-` and `+`."""
    for workflow, group in groupby(changes, key=lambda one: one.workflow):
        yield workflow
        for one in group:
            yield f"  {one.name}"
            before, after = ((text or "").splitlines() for text in (one.before, one.after))
            lines = list(difflib.unified_diff(before, after, n=1, lineterm=""))[2:]
            yield from (f"{line[:1]} {'   '}{line[1:]}" for line in lines if not line.startswith("@@"))


def _title(text: str) -> None:
    say()
    say(_bold(clean(text)))


def _bold(text: str) -> str:
    return click.style(text, bold=True) if coloured("x", "red") != "x" else text


def _patch_line(line: str) -> str:
    shown = clean(line.replace("\t", "    ")) if is_terminal() else line
    colour = "" if line.startswith(("+++", "---")) else _COLOURS.get(line[:1], "")
    return coloured(shown, colour) if colour else shown


def _coloured_line(line: str) -> str:
    colour = _COLOURS.get(line[:1], "") if line[1:2] == " " else ""
    return coloured(clean(line), colour) if colour else clean(line)


def _or_none(text: str | None) -> str:
    return "(not set)" if text is None else text


def _number(value: Measured | None) -> str:
    return "(none)" if value is None else number_text(value)


def _change(one: MetricChange) -> str:
    return "" if one.before is None or one.after is None else change_text(one.before, one.after)
