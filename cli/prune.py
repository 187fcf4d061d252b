"""`dstack prune`: archives finished runs and frees the store of their artifacts, in two phases a day apart."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import msgspec

from cli.ago import size_text
from cli.completing import complete_run
from cli.freeing import Choice, Refs, free, read_refs
from cli.purge import purge
from cli.question import confirm
from cli.reading import Reader
from cli.session import open_session
from cli.terminal import can_ask, clean, say
from dstack.model.errors import Invalid
from dstack.model.pruning import AGE, DELAY
from dstack.model.refs import RunKey
from dstack.model.units import parse_duration
from dstack.store import condemned
from dstack.store.pruning import Amount, Found, delete, look
from dstack.store.store import Store

OLDER_THAN = "14d"
SHOWN = 5

EXAMPLE = """\b
Examples:
  dstack prune --dry-run                  # what it would do
  dstack prune --everyone --older-than 30d -y
  dstack prune fast-rabbit-1 --purge      # this run wholly, and at once"""


class AmountLine(msgspec.Struct, frozen=True, kw_only=True):
    """Objects of the store, and their bytes."""

    objects: int = 0
    bytes: int = 0


class PrunedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """`prune --json`. `runs` are those that are freed; `due_at` is when what waits and is condemned can be deleted.

    With `--dry-run` all of it is what would be. `unknown` are the runs that the remote doesn't know and the store has
    logs of. `purged` is the run of `--purge`.
    """

    dry_run: bool
    runs: tuple[str, ...] = ()
    deleted: AmountLine = AmountLine()
    condemned: AmountLine = AmountLine()
    waiting: AmountLine = AmountLine()
    due_at: datetime | None = None
    unknown: tuple[str, ...] = ()
    purged: str | None = None


@click.command(epilog=EXAMPLE)
@click.argument("name", metavar="[RUN]", required=False, shell_complete=complete_run)
@click.option("--older-than", metavar="AGE", default=OLDER_THAN, help="Only runs that ended so long ago (14d).")
@click.option("--everyone", is_flag=True, help="Runs of others, too.")
@click.option("--purge", "purging", is_flag=True, help="Remove RUN from the remote, the archive and the store.")
@click.option("--force", is_flag=True, help="With --purge: its tags, too.")
@click.option("--unknown", is_flag=True, help="Also what is left of runs that the remote doesn't know (any more).")
@click.option("--dry-run", is_flag=True, help="Say what would be freed, and change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(  # noqa: PLR0913 (one for each option)
    folder: Path,
    *,
    name: str | None,
    older_than: str,
    everyone: bool,
    purging: bool,
    force: bool,
    unknown: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Free the store of untagged runs that ended long ago: what nothing needs is deleted a day after it was found."""
    if (name is None) is purging or (force and not purging):
        msg = "name a run together with --purge, or neither (--force goes with --purge)"
        raise click.UsageError(msg)
    age = timedelta(seconds=parse_duration(older_than))
    reader = Reader(open_session(folder))
    if name is not None:
        done = purge(reader, name, force=force, dry_run=dry_run, yes=yes)
        amount = AmountLine(objects=done.amount.objects, bytes=done.amount.bytes)
        document = PrunedDocument(dry_run=dry_run, purged=done.run, deleted=amount)
    else:
        choice = Choice(me=None if everyone else reader.session.me, age=age, now=datetime.now(UTC))
        document = _prune(reader, choice, unknown=unknown, dry_run=dry_run, yes=yes, quiet=as_json)
    if as_json:
        say(msgspec.json.encode(document).decode())


def _prune(  # noqa: PLR0913 (one for each option)
    reader: Reader, choice: Choice, *, unknown: bool, dry_run: bool, yes: bool, quiet: bool
) -> PrunedDocument:
    now = read_refs(reader)
    store = now.seen.store()
    leaving = [*(run.key for run in now.leaving(choice)), *(run.key for run in now.freed(choice))]
    found = look(store, now.living(store, leaving))
    shown = _document(leaving, found, dry_run=dry_run)
    if not quiet:
        _explain(shown)
    if dry_run or not (leaving or found.fresh or found.lists):
        return shown
    if found.unknown and not unknown:
        raise Invalid(_warning(shown.unknown))
    if not yes:
        _ask()
    freed = free(now, choice) if leaving else []
    return _deleted(reader, store, freed, now, quiet=quiet)


def _deleted(reader: Reader, store: Store, freed: Sequence[RunKey], before: Refs, *, quiet: bool) -> PrunedDocument:
    """Both phases, by what the refs say now: the question, and the push, may have taken long."""
    now = read_refs(reader)
    now.memory = before.memory
    alive = now.living(store)
    gone = delete(store, alive)
    found = look(store, alive)
    if found.fresh:
        since = condemned.write(store, found.fresh, reader.session.me)
        found.since = max(found.since or since, since)
    document = _document(freed, found, dry_run=False, gone=gone)
    if not quiet:
        _report(document)
    return document


def _document(freed: Sequence[RunKey], found: Found, *, dry_run: bool, gone: Amount | None = None) -> PrunedDocument:
    deleted = found.due if gone is None else gone
    return PrunedDocument(
        dry_run=dry_run,
        runs=tuple(key.name for key in freed),
        deleted=_line(deleted),
        condemned=_line(found.condemn),
        waiting=_line(found.waiting),
        due_at=found.since.astimezone(UTC) + DELAY if found.since else None,
        unknown=tuple(sorted(found.unknown)),
    )


def _line(amount: Amount) -> AmountLine:
    return AmountLine(objects=amount.objects, bytes=amount.bytes)


def _explain(shown: PrunedDocument) -> None:
    """What will be done."""
    if shown.runs:
        say(clean(f"Runs to free of their artifacts, and to archive: {_some(shown.runs)}"))
    if shown.deleted.objects:
        say(f"To delete, condemned more than a day ago: {_text(shown.deleted)}")
    if shown.condemned.objects:
        say(f"To condemn, which nothing needs any more: {_text(shown.condemned)}; deleted by a later `dstack prune`")
    if shown.waiting.objects and shown.due_at:
        say(f"Condemned already: {_text(shown.waiting)}; {_later(shown.due_at)}")
    if shown.unknown and shown.dry_run:
        say(clean(f"Mind: {_warning(shown.unknown)}"))
    if not (shown.runs or shown.deleted.objects or shown.condemned.objects or shown.waiting.objects):
        say(f"Nothing can be freed: what is younger than {AGE.days} days stays, and what a run or tag needs.")


def _warning(unknown: Sequence[str]) -> str:
    return (
        f"the store has logs of runs that this state remote doesn't know: {_some(unknown)}. If another remote uses the "
        "store, don't free it from here. If they were deleted by hand, say --unknown"
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def _report(done: PrunedDocument) -> None:
    """What was done."""
    if done.runs:
        say(f"Freed of their artifacts: {len(done.runs)} run{'s' if len(done.runs) > 1 else ''}")
    if done.deleted.objects:
        say(f"Deleted: {_text(done.deleted)}")
    if done.condemned.objects and done.due_at:
        say(f"Condemned: {_text(done.condemned)}; {_later(done.due_at)}")


def _later(due_at: datetime) -> str:
    return f"`dstack prune` deletes it from {due_at:%Y-%m-%d %H:%M} UTC on"


def _text(amount: AmountLine) -> str:
    return f"{amount.objects} object{'s' if amount.objects != 1 else ''}, {size_text(amount.bytes)}"


def _ask() -> None:
    if not can_ask():
        msg = "say --yes to do it"
        raise Invalid(msg)
    if not confirm("Go on?"):
        msg = "nothing was changed"
        raise Invalid(msg)
