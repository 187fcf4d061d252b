"""`dstack resume`: lets a run that was stopped, aborted or failed go on from what it saved last."""

import time
from pathlib import Path

import click
import msgspec

from cli.archived import find
from cli.completing import complete_run
from cli.home import why_nobody_decides
from cli.lines import RunLine
from cli.log_text import LogPrinter, prefixes
from cli.pick import readable
from cli.poking import poke
from cli.question import confirm
from cli.reading import Reader
from cli.run_end import exit_code, followed_on
from cli.session import Seen, open_session
from cli.signed_ledger import signed_ledger
from cli.summaries import load_runs
from cli.tails import Tails
from cli.terminal import can_ask, clean, say, tell
from dstack import interrupts
from dstack.ledger.submit import refusal
from dstack.model.errors import Conflict, Invalid
from dstack.model.observation import Outcome, RunRecord, SetWanted
from dstack.model.resuming import why_not
from dstack.model.runspec import Wanted
from dstack.model.status import Status
from dstack.model.world import RunView

EXAMPLE = """\b
Examples:
  dstack resume fast-rabbit-1 -f       # its stopped and failed jobs, from what they saved last
  dstack resume fast-rabbit-1 --clean  # the same jobs, from nothing"""

LOOK_SECONDS = 0.05


class ResumedLine(msgspec.Struct, frozen=True, kw_only=True):
    """`resume --json`: the generation that was asked for, and the jobs that are not DONE."""

    run: str
    root: str
    generation: int
    clean: bool
    jobs: tuple[str, ...]


@click.command(epilog=EXAMPLE)
@click.argument("name", metavar="RUN", shell_complete=complete_run)
@click.option("--clean", "afresh", is_flag=True, help="From nothing, not from what was saved.")
@click.option("-f", "--follow", is_flag=True, help="Print its logs until it ends; the exit code follows it.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(  # noqa: PLR0913 (one for each option)
    folder: Path, *, name: str, afresh: bool, follow: bool, yes: bool, as_json: bool
) -> int:
    """Let a run go on: its jobs that were stopped, aborted or failed, and what was skipped behind them."""
    if follow and as_json:
        msg = "--follow prints logs: leave out --json"
        raise click.UsageError(msg)
    reader = Reader(open_session(folder))
    seen = reader.session.poll()
    found = find(reader.session, seen, load_runs(reader.session, seen), name, jobs=False)
    picked = readable(found, reader.session.remote.name)
    if picked.run.archived:
        msg = f"{picked.run.run} can't be resumed: it is archived; `dstack run --from {picked.run.run}` runs it again"
        raise Invalid(msg)
    if not picked.exact and not yes:
        _ask(picked.run.run, name)
    before, wanted = _push(reader, picked.run.run, afresh=afresh)
    if as_json:
        say(msgspec.json.encode(_told(before, wanted)).decode())
        return 0
    _tell(before, seen, afresh=afresh)
    return _followed(reader, before, wanted) if follow else 0


def _ask(run: str, word: str) -> None:
    if not can_ask():
        msg = f"{word!r} is only the beginning of {run!r}: write the whole name, or --yes"
        raise Invalid(msg)
    if not confirm(f"Do you mean {run}?"):
        msg = "nothing was resumed"
        raise Invalid(msg)


def _push(reader: Reader, run: str, *, afresh: bool) -> tuple[RunLine, Wanted]:
    """Write the wish to the run's branch. Raises Invalid with why it can't be, Conflict where another was quicker."""
    seen = reader.session.poll()
    observation = reader.observation(seen, [run])
    view, record = reader.view(seen, run), observation.runs[run]
    if not isinstance(view, RunView) or not isinstance(record, RunRecord):
        msg = f"{run} can't be resumed: it is not a run of this dstack repository"
        raise Invalid(msg)
    if why := why_not(view):
        msg = f"{run} can't be resumed: {why}"
        raise Invalid(msg)
    generation = view.state.generation + 1
    if record.wanted.generation >= generation:
        msg = f"{run} is to be resumed already: the next controller does it"
        raise Conflict(msg)
    wanted = Wanted(root=record.root, generation=generation, clean=afresh)
    ledger = signed_ledger(reader.session, seen.settings)
    pushed = ledger.commit([SetWanted(run=run, wanted=wanted)], observation, atomic=True)
    if Outcome.REFUSED in pushed.outcomes.values():
        raise refusal(pushed, ledger.cache.url)
    if not pushed.won:
        msg = f"somebody else has just changed what is wanted of {run}: look at `dstack status {run}`, and try again"
        raise Conflict(msg)
    poke(reader.session, seen)
    return reader.line(seen, run), wanted


def _told(before: RunLine, wanted: Wanted) -> ResumedLine:
    jobs = tuple(job.job for job in before.jobs if job.status is not Status.DONE)
    return ResumedLine(run=before.run, root=before.root, generation=wanted.generation, clean=wanted.clean, jobs=jobs)


def _tell(before: RunLine, seen: Seen, *, afresh: bool) -> None:
    tell(f"{before.run} goes on:")
    for job in before.jobs:
        if job.status is not Status.DONE:
            saved = (
                "from nothing" if afresh else "from its artifacts" if job.artifacts else "from its last save, if any"
            )
            tell(f"  {job.job}  {clean(job.title)}: was {job.status}, {saved}")
    if why := why_nobody_decides(seen):
        tell(f"{why}. It goes on when one is there.")


def _followed(reader: Reader, before: RunLine, wanted: Wanted) -> int:
    """What was said before is not said again."""
    line = before
    while line.generation < wanted.generation:
        interrupts.check()
        time.sleep(LOOK_SECONDS)
        line = reader.line(reader.session.poll(), before.run)
    shown = frozenset(job.logs for job in before.jobs if job.logs)
    tails = Tails(printer=LogPrinter(prefixes=prefixes(line.jobs)), skip=shown)
    return exit_code(followed_on(reader, line, tails))
