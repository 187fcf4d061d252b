"""`dstack tag`: gives a run a name that stays, or stores files of this machine under one."""

from datetime import UTC, datetime
from pathlib import Path

import click

from cli.ago import size_text
from cli.archived import find, open_archive
from cli.completing import complete_run, complete_tag
from cli.pick import readable
from cli.progress import progress_bar
from cli.session import Seen, Session, open_session
from cli.summaries import load_runs
from cli.tagging import move, named
from cli.terminal import clean, say, tell
from dstack.ledger.tags import write_files
from dstack.model import refs
from dstack.model.errors import Invalid
from dstack.model.status import Status
from dstack.model.tags import LATEST, TaggedFiles

EXAMPLE = """\b
Examples:
  dstack tag fast-rabbit-1                  # as `latest`: others write `depends-on: [train:latest]`
  dstack tag fast-rabbit-1 v1.0
  dstack tag raw-data --from data/raw       # files of this machine: `depends-on: [prepare:raw-data]`"""


@click.command(epilog=EXAMPLE)
@click.argument("name", metavar="RUN|TAG", shell_complete=complete_run)
@click.argument("tag", metavar="[TAG]", required=False, shell_complete=complete_tag)
@click.option(
    "--from", "source", type=click.Path(path_type=Path), metavar="DIR", help="Store these files under the tag."
)
@click.pass_obj
def command(folder: Path, *, name: str, tag: str | None, source: Path | None) -> None:
    """Name a run, so that it is kept and others can depend on it. A tag that exists moves to it.

    With --from, the files of a folder in this repository are stored, and get the tag.
    """
    if source is not None and tag is not None:
        msg = "with --from, name the tag alone: `dstack tag TAG --from DIR`"
        raise click.UsageError(msg)
    wanted = refs.check_tag(name if source is not None else tag or LATEST)
    session = open_session(folder)
    seen = session.poll()
    if source is not None:
        target, what = _stored(session, seen, wanted, folder / source)
    else:
        target, what = _run(session, seen, name)
    before = named(session, seen, wanted)
    move(session, seen, wanted, target)
    moved = f"; it was {before} before" if before not in ("", what) else ""
    say(clean(f"{wanted} is {what}{moved}"))


def _run(session: Session, seen: Seen, name: str) -> tuple[str, str]:
    run = readable(find(session, seen, load_runs(session, seen), name, jobs=False), session.remote.name).run
    if run.status is not Status.DONE:
        tell(f"{run.run} is {run.status}: others can depend on its artifacts only when it is DONE.")
    kept = open_archive(session).find(run.key) if run.archived else None
    if kept and kept.freed:
        tell(f"{run.run} was freed of its artifacts: what the store still has of them stays from now on.")
    return run.root, run.run


def _stored(session: Session, seen: Seen, tag: str, source: Path) -> tuple[str, str]:
    """Bytes first, then what names them. Raises Invalid where there is nothing to store."""
    from dstack.store.artifacts import Tree, save  # noqa: PLC0415 (a tag of a run needs none of it)

    top = session.code.top
    try:
        inside = source.resolve().relative_to(top.resolve())
    except ValueError as error:
        msg = f"{source} lies outside of the repository {top}: its files would have no path there; copy it into it"
        raise Invalid(msg) from error
    if not source.exists() or inside == Path():
        msg = f"{source} {'is the whole repository: name a folder in it' if source.exists() else 'does not exist'}"
        raise Invalid(msg)
    store = seen.store()
    with progress_bar(str(inside)) as progress:
        saved = save(store, Tree(root=top), (str(inside),), progress=progress)
    for warning in saved.warnings:
        tell(f"warning: {clean(warning)}")
    if saved.digest is None or saved.manifest is None or not saved.manifest.entries:
        msg = f"{source} holds nothing that can be stored"
        raise Invalid(msg)
    files = TaggedFiles(
        repository=seen.known_repository(),
        tag=tag,
        store=seen.store_url,
        manifest=saved.digest,
        folder=str(inside),
        tagged_by=session.me,
        tagged_at=datetime.now(UTC).replace(microsecond=0),
    )
    return write_files(session.cache.objects, files), f"{inside} ({size_text(saved.manifest.size)})"
