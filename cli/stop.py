"""`dstack stop`: stops or aborts runs and jobs, and waits until it is so."""

from collections.abc import Sequence
from pathlib import Path

import click

from cli.archived import find
from cli.completing import complete_job
from cli.following import updates
from cli.home import why_nobody_decides
from cli.lines import RunLine
from cli.pick import Picked, candidates, pick, readable
from cli.question import confirm
from cli.reading import Reader
from cli.session import Seen, open_session
from cli.status_table import run_text
from cli.stopping import Wish, ask_for
from cli.summaries import load_runs
from cli.terminal import can_ask, clean, say, tell
from dstack.model.errors import Invalid
from dstack.model.runspec import Desired

EXAMPLE = """\b
Examples:
  dstack stop fast-rabbit-1           # SIGTERM, then after the grace SIGKILL; artifacts are kept
  dstack stop fast-rabbit-1 --abort   # SIGKILL at once; artifacts are dropped
  dstack stop 3f2a81c09d5e            # one job, and what depends on it
  dstack stop --mine"""


@click.command(epilog=EXAMPLE)
@click.argument("names", metavar="[RUN|JOB]...", nargs=-1, shell_complete=complete_job)
@click.option("-a", "--abort", is_flag=True, help="Kill at once, and drop the artifacts.")
@click.option("-d", "--detach", is_flag=True, help="Don't wait until it is so.")
@click.option("--mine", is_flag=True, help="All my runs.")
@click.option("--everyone", is_flag=True, help="All runs, whoever submitted them.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@click.pass_obj
def command(  # noqa: PLR0913 (one for each option)
    folder: Path, *, names: tuple[str, ...], abort: bool, detach: bool, mine: bool, everyone: bool, yes: bool
) -> None:
    """Stop runs or jobs: what waits never starts, what runs is ended."""
    if bool(names) + mine + everyone != 1:
        msg = "name runs or jobs, or give one of --mine and --everyone"
        raise click.UsageError(msg)
    reader = Reader(open_session(folder))
    seen = reader.session.poll()
    runs = load_runs(reader.session, seen)
    picked = [_named(reader, seen, runs, name) for name in names] or _all(reader, runs, everyone=everyone, yes=yes)
    _confirm(names, picked, yes=yes)
    desired = Desired.ABORT if abort else Desired.STOP
    stopped = [one for one in picked if _stop(reader, one, desired)]
    if not detach:
        _wait(reader, stopped, seen)


def _named(reader: Reader, seen: Seen, runs: Sequence[RunLine], name: str) -> Picked:
    """What is meant; among archived runs only where nothing else can be."""
    here = any(candidates(name, runs, jobs=True))
    picked = pick(name, runs) if here else find(reader.session, seen, runs, name)
    return readable(picked, reader.session.remote.name)


def _all(reader: Reader, runs: Sequence[RunLine], *, everyone: bool, yes: bool) -> list[Picked]:
    mine = reader.session.me
    found = [run for run in runs if not run.finished and (everyone or run.submitted_by == mine)]
    others = [run.run for run in found if run.submitted_by != mine]
    if others and not yes:
        _ask(f"{len(others)} of these runs are not yours: {', '.join(others[:5])}. Stop them?", "say --yes to do it")
    if not found:
        tell("Nothing is running.")
    return [Picked(run=run, job=None, exact=True) for run in found]


def _confirm(names: Sequence[str], picked: Sequence[Picked], *, yes: bool) -> None:
    guessed = [(word, one.name) for word, one in zip(names, picked, strict=False) if not one.exact]
    for word, name in guessed if not yes else ():
        _ask(f"Do you mean {name}?", f"{word!r} is only the beginning of {name!r}: write the whole name, or --yes")


def _ask(question: str, otherwise: str) -> None:
    if not can_ask():
        raise Invalid(otherwise)
    if not confirm(clean(question)):
        msg = "nothing was stopped"
        raise Invalid(msg)


def _stop(reader: Reader, one: Picked, desired: Desired) -> bool:
    """Whether there was anything to stop."""
    if one.run.archived:
        say(f"{one.name} has ended already: {clean(run_text(one.run))}; it is archived")
        return False
    if one.run.status and one.run.finished and all(job.status.finished for job in one.jobs):
        say(f"{one.name} has ended already: {clean(run_text(one.run))}")
        return False
    ask_for(reader, Wish(run=one.run.run, desired=desired, jobs=(one.job.job,) if one.job else ()))
    return True


def _wait(reader: Reader, picked: Sequence[Picked], seen: Seen) -> None:
    if picked and (why := why_nobody_decides(seen)):
        tell(f"{why}; it is stopped as soon as one is there (^C leaves it so)")
    for one in picked:
        for update in updates(reader, one.run.key):
            if update and (end := _end(one, update[1])):
                say(f"{one.name} is {end}")
                break


def _end(one: Picked, line: RunLine) -> str:
    """The word for its end; empty while it hasn't ended."""
    if one.job is None:
        return str(line.status) if line.finished else ""
    job = next((job for job in line.jobs if job.job == one.job.job), None)
    return str(job.status) if job and job.status.finished else ""
