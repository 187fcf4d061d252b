"""Prepares and submits a run: the first acts of `dstack run`. What comes after the push is in `cli.submitted`."""

import importlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import click

from cli.interrupts import deferred, goes_on
from cli.poking import poke
from cli.preparing import Order, Prepared, fresh_name, prepare, taken_names
from cli.question import confirm
from cli.session import Seen, Session, open_session, set_up
from cli.signed_ledger import signed_ledger
from cli.terminal import can_ask, clean, said_within, tell
from dstack.ledger.code import CodeRepository
from dstack.ledger.gitledger import GitLedger
from dstack.ledger.submit import Submitted, submit
from dstack.model.errors import Conflict, Invalid
from dstack.model.plan import Plan

TRIES = 10
SHOWN_JOBS = 20
TOLD = "told"
# Columns before a job's title: its id, two blanks on each side.
BEFORE = 16
# Behind a push, nobody waits longer to hear what is likely.
LOOK_SECONDS = 0.3


def run(folder: Path, code: CodeRepository, order: Order) -> int:
    """Do what `dstack run WORKFLOW …` asks for; the exit code."""
    options = order.options
    if options.as_json and not (options.detach or options.dry_run):
        msg = "--json goes with --detach or --dry-run"
        raise click.UsageError(msg)
    if options.local and options.detach:
        msg = "--local works in this process, which --detach would end"
        raise click.UsageError(msg)
    session = open_session(folder, code)
    if options.dry_run:
        from cli.dry_run import dry_run  # noqa: PLC0415 (only this needs it)

        return dry_run(session, order)
    if options.local:
        from cli.local import run_locally  # noqa: PLC0415 (it imports the controller and the runner)

        return run_locally(session, order)
    seen, prepared = checked(session, order)
    # What follows is imported while git pushes.
    ahead = threading.Thread(target=importlib.import_module, args=("cli.submitted",), daemon=True)
    ahead.start()
    prepared, submitted = submitted_run(session, prepared, seen)
    with told_if_left(prepared):
        ahead.join()
        from cli.submitted import print_detached, see_through  # noqa: PLC0415 (see above)

        if options.detach:
            return print_detached(prepared, submitted)
        return see_through(session, seen, prepared, submitted)


def checked(session: Session, order: Order, *, only: str | None = None) -> tuple[Seen, Prepared]:
    """The run, ready to be pushed: nothing is, not even the repository's id, before all that can be checked is."""
    seen = session.poll()
    if seen.repository is not None:
        seen.store()
    prepared = prepare(session, order, seen, only=only)
    if seen.repository is None:
        seen = set_up(session)
        seen.store()
        prepared = prepared.of(seen.known_repository())
    return seen, prepared


def submitted_run(session: Session, prepared: Prepared, seen: Seen) -> tuple[Prepared, Submitted]:
    """Push it, under another name where its own has just been taken. Raises Invalid, Failed, Unavailable."""
    for warning in prepared.snapshot.warnings:
        tell(f"warning: {clean(warning)}")
    _say_what_travels(session, prepared)
    done: tuple[Prepared, Submitted] | None = None
    try:
        # While git pushes: what has become of earlier runs.
        looking = _Looking(session, seen, prepared)
        with deferred():
            done = _push(session, prepared, signed_ledger(session, seen.settings))
        poke(session, seen)
        _tell_jobs(done[0], done[0].plan(done[1].root), looking.texts())
    except KeyboardInterrupt:
        if done:
            tell(_left(done[0]))
        raise
    return done


@contextmanager
def told_if_left(prepared: Prepared) -> Iterator[None]:
    """An interrupt in the block, where nobody asks what it means, says what becomes of the run, which is there."""
    try:
        yield
    except KeyboardInterrupt:
        tell(_left(prepared))
        raise


def _left(prepared: Prepared) -> str:
    run = prepared.spec.run
    if prepared.order.options.local:
        return f"{run} was submitted for this process alone: the next controller will finish it as lost"
    return goes_on(run)


def _push(session: Session, prepared: Prepared, ledger: GitLedger) -> tuple[Prepared, Submitted]:
    for _ in range(TRIES):
        try:
            return prepared, submit(ledger, prepared.snapshot, prepared.spec)
        except Conflict as error:
            if prepared.order.options.name:
                raise Invalid(str(error)) from error
            prepared = prepared.renamed(fresh_name(taken_names(session.poll())))
    msg = f"{TRIES} names in a row were taken by others meanwhile: try again"
    raise Conflict(msg)


def _say_what_travels(session: Session, prepared: Prepared) -> None:
    """Once for each remote: what leaves the work tree, and where it goes."""
    marker = session.place / TOLD
    if marker.exists() or session.remote.name == ".":
        return
    where = f"{clean(session.remote.name)} ({clean(session.remote.url)})"
    tell(f"This sends {prepared.snapshot.travels} to the state remote {where}.")
    tell("A file .dstackignore keeps files at home. This is said once for each remote.")
    asking = can_ask() and not prepared.order.options.yes
    if asking and not confirm("Send it?", default=True):
        msg = "nothing was sent"
        raise Invalid(msg)
    with suppress(OSError):
        marker.touch()


class _Looking:
    """Looks, in a thread, for what each of the first jobs is likely to be: new, or reused."""

    def __init__(self, session: Session, seen: Seen, prepared: Prepared) -> None:
        """Begin. A cache is for one thread at a time, so it is opened again."""
        self._texts: dict[int, str] = {}
        work = partial(self._look, session.again(), seen, prepared)
        self._thread = threading.Thread(target=work, name="outlook", daemon=True)
        self._thread.start()

    def texts(self) -> Mapping[int, str]:
        """What is known by now, by the places of jobs in the plan."""
        self._thread.join(LOOK_SECONDS)
        return dict(self._texts)

    def _look(self, session: Session, seen: Seen, prepared: Prepared) -> None:
        from cli.outlook import outlooks  # noqa: PLC0415 (it takes a while, which a push takes as well)

        plan = prepared.plan()
        # They come in the order of the plan.
        for place, (_, outlook) in enumerate(outlooks(session, seen, prepared.spec, plan)):
            self._texts[place] = outlook.text


def _tell_jobs(prepared: Prepared, plan: Plan, outlook: Mapping[int, str]) -> None:
    tell(f"Run {prepared.spec.run}: {count_text(plan)}")
    for place, planned in enumerate(plan.jobs[:SHOWN_JOBS]):
        needs = sorted({need.workflow for need in planned.job.needs})
        after = f", after {', '.join(needs)}" if needs else ""
        text = outlook.get(place)
        said = f"{clean(planned.job.title)}{after}" + (f": {clean(text)}" if text else "")
        tell(f"  {planned.id}  {said_within(said, BEFORE)}")
    if len(plan.jobs) > SHOWN_JOBS:
        tell(f"  … and {len(plan.jobs) - SHOWN_JOBS} more")


def count_text(plan: Plan) -> str:
    """`1 job`, `12 jobs`."""
    return f"{len(plan.jobs)} job{'' if len(plan.jobs) == 1 else 's'}"
