"""`dstack checkout`: the code of a run in a folder of its own, to look at or to work on."""

import shlex
from pathlib import Path

import click

from cli.archived import find
from cli.completing import complete_job
from cli.measures import view_of
from cli.pick import readable
from cli.reading import Reader
from cli.session import open_session
from cli.summaries import load_runs
from cli.terminal import say, tell
from dstack.ledger.checkout import Checkout, check_out, check_target
from dstack.ledger.codediff import bring

EXAMPLE = """\b
Examples:
  dstack checkout fast-rabbit-1 ../fast-rabbit-1
  cd ../fast-rabbit-1 && git log        # the snapshot, and what it stands on"""


@click.command(epilog=EXAMPLE)
@click.argument("name", metavar="RUN|JOB", shell_complete=complete_job)
@click.argument("target", metavar="DIR", type=click.Path(path_type=Path))
@click.pass_obj
def command(folder: Path, *, name: str, target: Path) -> None:
    """Put the files of a run, as they were submitted, into DIR: a git repository of its own, on a branch of that name.

    DIR is a new or an empty folder.
    """
    place = folder / target.expanduser()
    check_target(place)
    reader = Reader(open_session(folder))
    session, seen = reader.session, reader.session.poll()
    picked = readable(find(session, seen, load_runs(session, seen), name), session.remote.name)
    view = view_of(reader, seen, picked)
    snapshot = view.spec.code.snapshot
    bring(session.cache, session.code, view.key, snapshot, archived=picked.run.archived)
    _explain(check_out(session.cache, session.code, snapshot, picked.run.run, place), snapshot)


def _explain(done: Checkout, snapshot: str) -> None:
    say(f"{done.folder}: the code of {done.branch} ({snapshot[:12]}), on a branch of that name")
    place = shlex.quote(str(done.folder))
    if done.head is None:
        tell("Its history did not travel with the run: it is one commit.")
    if done.submodules:
        tell(f"Folders of submodules are empty: `git -C {place} submodule update --init` fills them.")
    if done.pointers:
        files = "1 large file is" if done.pointers == 1 else f"{done.pointers} large files are"
        how = f"`git -C {place} lfs pull` brings them" if done.origin else "`git lfs pull` needs a remote to bring them"
        tell(f"{files} in git LFS, and only named here: {how}.")
