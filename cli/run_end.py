"""Follows a run from its submission to its end: says what changes, asks on ^C, and turns the end into an exit code."""

from collections.abc import Callable
from dataclasses import dataclass, field

import click

from cli.door import GOOD, INTERRUPTED, TROUBLE
from cli.following import follow
from cli.interrupts import goes_on
from cli.lines import JobLine, RunLine
from cli.log_text import LogPrinter
from cli.question import choose, confirm
from cli.reading import Reader
from cli.status_table import job_text, run_text
from cli.stopping import Wish, ask_for
from cli.tails import Tails
from cli.terminal import can_ask, clean, tell
from dstack import interrupts
from dstack.model.runspec import Desired
from dstack.model.status import Status

_TOLD = frozenset({Status.RUNNING, Status.DONE, Status.FAILED, Status.STOPPED, Status.ABORTED, Status.SKIPPED})
_ANSWERS = {"s": Desired.STOP, "a": Desired.ABORT}


@dataclass(slots=True)
class Story:
    """Says what has become of each job since it was last looked at."""

    _known: dict[str, Status] = field(default_factory=dict)

    def watch(self, line: RunLine) -> None:
        """Take in the run as it is now."""
        for job in line.jobs:
            if self._known.get(job.job) is not job.status:
                self._known[job.job] = job.status
                if job.status in _TOLD:
                    tell(_sentence(job))


def _sentence(job: JobLine) -> str:
    where = f" on {job.runner}" if job.status is Status.RUNNING and job.runner else ""
    return f"{clean(job.title)} ({job.job}) is {clean(job_text(job))}{where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How following ended. `interrupted`: by ^C; then `line` may be of a run that goes on."""

    line: RunLine
    interrupted: bool = False


# What ^C means: the wish, or None to leave the run alone.
OnInterrupt = Callable[[RunLine], Desired | None]


def followed(reader: Reader, line: RunLine, printer: LogPrinter, on_interrupt: OnInterrupt | None = None) -> End:
    """Print logs and changes until the run has ended, or the user leaves it."""
    return followed_on(reader, line, Tails(printer=printer), on_interrupt, new=True)


def followed_on(
    reader: Reader, line: RunLine, tails: Tails, on_interrupt: OnInterrupt | None = None, *, new: bool = False
) -> End:
    """Likewise, of a run that was there before, unless it is `new`."""
    story, interrupted = Story(), False
    while True:
        try:
            end = follow(reader, line.key, tails, story.watch, new=new and not interrupted)
        except KeyboardInterrupt:
            interrupts.answered()
            desired = (on_interrupt or asked)(line)
            if desired is None:
                return End(line=line, interrupted=True)
            interrupted = True
            tell(f"{line.run} is told to {desired}; ^C again asks again")
            ask_for(reader, Wish(run=line.run, desired=desired))
            continue
        tell(f"{end.run} is {clean(run_text(end))}")
        if end.jobs and all(job.reused_from for job in end.jobs):
            tell(f"Nothing had to run: `dstack logs {end.run}` shows what was said then, --no-cache runs it anew.")
        return End(line=end, interrupted=interrupted)


def asked(line: RunLine) -> Desired | None:
    """Stop, abort, or leave it running; without a terminal it is left running. Says how it can be stopped then."""
    answer = "l"
    if can_ask():
        try:
            question = f"\n{line.run} is not finished: (s)top it, (a)bort it, or (l)eave it running?"
            answer = choose(question, ("s", "a", "l"), default="l")
        except (click.Abort, KeyboardInterrupt):
            _end_question()
    if answer not in _ANSWERS:
        tell(goes_on(line.run))
    return _ANSWERS.get(answer)


def asked_locally(_line: RunLine) -> Desired:
    """Nobody else could carry a `--local` run on: it is stopped, and aborted where the user can't wait."""
    if not can_ask():
        return Desired.STOP
    try:
        abort = confirm("\nStop it and keep its artifacts? (no: abort it)", default=True)
    except (click.Abort, KeyboardInterrupt):
        _end_question()
        return Desired.ABORT
    return Desired.STOP if abort else Desired.ABORT


def _end_question() -> None:
    """^C was the answer: it must not be taken for a new one, and what is said next begins a line."""
    interrupts.answered()
    tell("")


def exit_code(end: End) -> int:
    """The exit code follows the run."""
    if end.interrupted:
        return INTERRUPTED
    return GOOD if end.line.status is Status.DONE else TROUBLE
