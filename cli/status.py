"""`dstack status`: what runs, what waits and why, what ended and how."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from cli.completing import complete_run
from cli.lines import RunLine
from cli.marks import AWAY_POLL_SECONDS
from cli.pick import candidates, pick, way_out
from cli.poking import listening
from cli.session import Seen, Session, open_session
from cli.status_table import COLUMNS, rows
from cli.summaries import latest_first, load_runs
from cli.table import table_text
from cli.terminal import clean, is_terminal, say, tell
from cli.watching import Frame, watch
from dstack.ledger.objects import Damaged
from dstack.model import refs
from dstack.model.errors import Invalid
from dstack.wakeups import Wakeups

WATCH_SECONDS = 1.0
MOST_TROUBLES = 10

EXAMPLE = """\b
Examples:
  dstack status              # unfinished runs, else the last finished one
  dstack status -n 5         # the last five
  dstack status fast-rabbit-1
  dstack status -w           # go on showing them, until they have ended
  dstack status --all --json | jq -r '.[].run'"""


@click.command(epilog=EXAMPLE)
@click.argument("run", required=False, shell_complete=complete_run)
@click.option("-n", "--last", type=click.IntRange(min=1), metavar="N", help="The last N runs, finished or not.")
@click.option("-a", "--all", "everything", is_flag=True, help="All runs, archived ones too.")
@click.option("--mine", is_flag=True, help="Only runs that I submitted.")
@click.option("--no-jobs", is_flag=True, help="One line a run.")
@click.option("-w", "--watch", "watching", is_flag=True, help="Show them anew on every change, until all have ended.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(  # noqa: PLR0913 (one for each option)
    folder: Path,
    *,
    run: str | None,
    last: int | None,
    everything: bool,
    mine: bool,
    no_jobs: bool,
    watching: bool,
    as_json: bool,
) -> None:
    """Show runs and their jobs: by default those not finished, else the last finished one."""
    if watching and as_json:
        msg = "--json prints one document: leave out --watch"
        raise click.UsageError(msg)
    session = open_session(folder)
    choice = Choice(run=run, last=last, everything=everything, mine=mine)
    seen, runs, lines = _look(session, choice, frozenset())
    if as_json:
        say(msgspec.json.encode(lines).decode())
        return
    if watching:
        lines = _watch(session, choice, jobs=not no_jobs)
    elif lines:
        say(_table(lines, jobs=not no_jobs))
    _tell_more(runs, seen)
    _tell_odd(runs, lines, session.remote.name)
    if refs.SEEN in seen.found and not run:
        _tell_troubles(session, seen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which runs are shown."""

    run: str | None
    last: int | None
    everything: bool
    mine: bool


def _look(
    session: Session, choice: Choice, before: frozenset[str]
) -> tuple[Seen, Sequence[RunLine], Sequence[RunLine]]:
    """One poll: all runs, and those to be shown. `before`: roots of runs that stay shown, though they have ended."""
    seen = session.poll()
    runs: Sequence[RunLine] = load_runs(session, seen)
    if choice.everything and not choice.run:
        runs = _with_archived(session, seen, runs)
    if choice.mine:
        runs = tuple(line for line in runs if line.submitted_by == session.me)
    if choice.run:
        chosen = [_named(session, seen, runs, choice.run)]
    else:
        found = {line.root for line in chosen_runs(runs, last=choice.last, everything=choice.everything)}
        if before and all(line.finished for line in runs if line.root in found):
            found = set()
        shown = found | before
        chosen = [line for line in runs if line.root in shown]
    return seen, runs, _explained(chosen, session, seen)


def _with_archived(session: Session, seen: Seen, runs: Sequence[RunLine]) -> Sequence[RunLine]:
    from cli.archived import archived_lines, open_archive  # noqa: PLC0415 (only who asks for them pays for them)

    return latest_first([*runs, *archived_lines(open_archive(session), seen)])


def _named(session: Session, seen: Seen, runs: Sequence[RunLine], name: str) -> RunLine:
    if any(one.exact for one in candidates(name, runs, jobs=False)):
        return pick(name, runs, jobs=False).run
    from cli.archived import find  # noqa: PLC0415 (likewise)

    return find(session, seen, runs, name, jobs=False).run


def _watch(session: Session, choice: Choice, *, jobs: bool) -> Sequence[RunLine]:
    """Until all that was shown has ended; the runs as they are then."""
    last: Sequence[RunLine] = ()
    news, wakeups = threading.Event(), list[Wakeups]()

    def frame() -> Frame:
        nonlocal last
        seen, _, last = _look(session, choice, frozenset(line.root for line in last))
        if not wakeups and (listener := listening(seen, session.remote, news.set)):
            wakeups.append(listener)
        text = _table(last, jobs=jobs) if last else ""
        return Frame(text=text, over=all(line.finished for line in last))

    try:
        watch(frame, every=AWAY_POLL_SECONDS.get(session.remote.reach, WATCH_SECONDS), news=news)
    finally:
        for one in wakeups:
            one.stop()
    return last


def _table(lines: Sequence[RunLine], *, jobs: bool) -> str:
    return table_text(COLUMNS, list(rows(lines, jobs=jobs, repeat=not is_terminal(), now=datetime.now(UTC))))


def chosen_runs(runs: Sequence[RunLine], *, last: int | None, everything: bool) -> list[RunLine]:
    """Those of all runs, the latest first, that are shown where none is named."""
    if everything or last:
        return list(runs[:last])
    unfinished = [line for line in runs if not line.finished]
    return unfinished or [line for line in runs if line.status][:1]


def _explained(lines: Sequence[RunLine], session: Session, seen: Seen) -> Sequence[RunLine]:
    """What is unfinished says what it waits for."""
    if all(line.finished for line in lines):
        return lines
    from cli.reading import Reader  # noqa: PLC0415 (100 ms of imports that finished runs don't need)
    from cli.waiting import with_reasons  # noqa: PLC0415 (likewise)

    return with_reasons(lines, Reader(session), seen)


def _tell_more(runs: Sequence[RunLine], seen: Seen) -> None:
    """On standard error: what the table leaves out and would be missed."""
    if seen.repository is None:
        tell("dstack has not been set up for this repository yet: run `dstack init`, `dstack up` or a workflow")
    elif not runs:
        tell("No run is here: `dstack run --help` lists the workflows, `dstack status --all` shows archived runs, too.")


def _tell_odd(runs: Sequence[RunLine], shown: Sequence[RunLine], remote: str) -> None:
    """On standard error: runs and records that are passed over."""
    for line in shown:
        if line.problem:
            tell(clean(f"{line.run}: {way_out(line, remote)}"))
        for text in line.unreadable:
            tell(clean(f"warning: {line.run}: {text} (passed over)"))
    names = {line.run for line in shown}
    odd = [line.run for line in runs if line.status is None and line.run not in names]
    if odd:
        tell(f"Not shown, because they can't be executed here: {clean(', '.join(odd))} (`dstack status RUN` says why)")


def _tell_troubles(session: Session, seen: Seen) -> None:
    """On standard error: what should have been started by a trigger, and wasn't."""
    from dstack.ledger.seentree import read_troubles  # noqa: PLC0415 (only where there are triggers)

    try:
        troubles = read_troubles(session.cache.objects, seen.found[refs.SEEN]).troubles
    except (Invalid, Damaged) as error:
        tell(clean(f"warning: what triggers remember can't be read: {error}"))
        return
    for path, one in sorted(troubles.items())[:MOST_TROUBLES]:
        what = f"{path} at {one.mark[:7]}" if "T" not in one.mark else path
        names = f" ({', '.join(one.workflows)})" if one.workflows else ""
        times = f", refused {one.refusals} times" if one.refusals > 1 else ""
        tell(clean(f"Not started by {what}{names}{times}: {one.reason}"))
    if len(troubles) > MOST_TROUBLES:
        tell(f"… and {len(troubles) - MOST_TROUBLES} more: `git ls-tree -r {refs.SEEN}` in the state remote")
