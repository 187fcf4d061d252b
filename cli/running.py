"""Prepares and submits a run: the first acts of `dstack run`. What comes after the push is in `cli.submitted`."""

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click
import msgspec

from cli.interrupts import deferred, goes_on
from cli.preparing import Order, Prepared, fresh_name, prepare, taken_names
from cli.question import confirm
from cli.session import Seen, Session, open_session, set_up
from cli.table import Column, show_table
from cli.terminal import can_ask, clean, say, tell
from dstack.ledger.code import CodeRepository
from dstack.ledger.gitledger import GitLedger
from dstack.ledger.submit import Submitted, submit
from dstack.model.errors import Conflict, Invalid
from dstack.model.job import Job
from dstack.model.plan import Plan

TRIES = 10
SHOWN_JOBS = 20
TOLD = "told"


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
        return _dry_run(session, order)
    if options.local:
        from cli.local import run_locally  # noqa: PLC0415 (it imports the controller and the runner)

        return run_locally(session, order)
    seen, prepared = checked(session, order)
    # What follows is imported while git pushes.
    ahead = threading.Thread(target=importlib.import_module, args=("cli.submitted",), daemon=True)
    ahead.start()
    prepared, submitted = submitted_run(session, prepared)
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


def submitted_run(session: Session, prepared: Prepared) -> tuple[Prepared, Submitted]:
    """Push it, under another name where its own has just been taken. Raises Invalid, Failed, Unavailable."""
    for warning in prepared.snapshot.warnings:
        tell(f"warning: {clean(warning)}")
    _say_what_travels(session, prepared)
    done: tuple[Prepared, Submitted] | None = None
    try:
        with deferred():
            done = _push(session, prepared)
        _tell_jobs(done[0], done[0].plan(done[1].root))
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


def _push(session: Session, prepared: Prepared) -> tuple[Prepared, Submitted]:
    ledger = GitLedger(session.cache)
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


def _dry_run(session: Session, order: Order) -> int:
    prepared = prepare(session, order, session.poll())
    plan = prepared.plan()
    if order.options.as_json:
        jobs = [msgspec.to_builtins(planned.job) for planned in plan.jobs]
        say(msgspec.json.encode({"workflow": order.workflow, "jobs": jobs}).decode())
        return 0
    for warning in prepared.snapshot.warnings:
        tell(f"warning: {clean(warning)}")
    columns = [Column(title=title) for title in ("WORKFLOW", "VARIABLES", "NEEDS", "IMAGE")]
    show_table(columns, [_plan_row(planned.job) for planned in plan.jobs])
    tell(f"{_count(plan)} would run on {prepared.snapshot.travels}. Nothing was pushed.")
    return 0


def _plan_row(job: Job) -> list[str]:
    values = " ".join(f"{name}={value}" for name, value in sorted(job.variables.items()))
    return [job.title, values, ", ".join(sorted({need.workflow for need in job.needs})), job.image or "(process)"]


def _tell_jobs(prepared: Prepared, plan: Plan) -> None:
    tell(f"Run {prepared.spec.run}: {_count(plan)}")
    for planned in plan.jobs[:SHOWN_JOBS]:
        needs = sorted({need.workflow for need in planned.job.needs})
        after = f", after {', '.join(needs)}" if needs else ""
        tell(f"  {planned.id}  {clean(planned.job.title)}{after}")
    if len(plan.jobs) > SHOWN_JOBS:
        tell(f"  … and {len(plan.jobs) - SHOWN_JOBS} more")


def _count(plan: Plan) -> str:
    return f"{len(plan.jobs)} job{'' if len(plan.jobs) == 1 else 's'}"
