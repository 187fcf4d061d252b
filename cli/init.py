"""`dstack init`: sets up a repository. Safe to run again: it does what is missing."""

import os
from pathlib import Path

import click
from msgspec.structs import replace

from cli.checks import Result, push_check, store_check
from cli.session import Seen, Session, open_session, set_up
from cli.shared_settings import change_settings
from cli.terminal import say
from dstack.ledger import git
from dstack.ledger.access import keep_credentials
from dstack.ledger.address import parse_address
from dstack.ledger.code import CodeRepository, find_code
from dstack.ledger.remote import choose_remote
from dstack.model.errors import Failed
from dstack.model.workflows import PATH
from dstack.store.location import folder_of, open_store

EXAMPLE = """\b
Examples:
  dstack init
  dstack init --store file:///mnt/shared/dstack
  dstack init --remote https://git.example.org/state.git    # keep the state in a repository apart"""

SAMPLE = """\
# Workflows: `dstack run hello`, `dstack run hello --who you`. All keys: docs/workflows.md
workflows:
  - name: hello
    help: Say hello, and write it to a file
    commands:
      - echo "hello from $run_name"
      - mkdir -p out && date > out/when.txt
    artifacts:
      - out
"""


@click.command(epilog=EXAMPLE)
@click.option(
    "--store", metavar="URL", help="Where logs and artifacts go: file:///path. By default in your data folder."
)
@click.option(
    "--remote",
    metavar="NAME|URL|PATH",
    help="The state remote: a git remote's name, a URL, a path, or `.` for this one.",
)
@click.pass_obj
def command(folder: Path, *, store: str | None, remote: str | None) -> None:
    """Set up a repository: id, store, access check, a sample workflow if there is none."""
    if store:
        folder_of(store)
    code = find_code(folder)
    if remote:
        code = _choose_remote(code, remote, folder)
    session = open_session(folder, code)
    seen = set_up(session, store=store)
    if store and seen.settings.store != store:
        open_store(store, seen.known_repository(), create=True)
        seen = change_settings(session, lambda settings: replace(settings, store=store), f"Keep new runs in {store}")
    open_store(seen.store_url, seen.known_repository(), create=True)
    for check in (push_check(session), store_check(seen)):
        if check.result is Result.BAD:
            raise Failed(check.text)
    _report(session, seen)


def _choose_remote(code: CodeRepository, name: str, folder: Path) -> CodeRepository:
    """Check it, then keep it in git's settings of this repository."""
    if name != "." and f"remote.{name}.url" not in code.settings and "://" not in name and (folder / name).exists():
        name = os.path.abspath(folder / name)  # noqa: PTH100 (symbolic links stay as the user wrote them)
    choose_remote({**code.settings, "dstack.remote": name}, code.top, code.common, code.reaching)
    address = parse_address(name)
    if address.password is not None:
        keep_credentials(code.common / "dstack", address)
    git.output(code.context, "config", "dstack.remote", address.url if address.password is not None else name)
    return find_code(folder)


def _report(session: Session, seen: Seen) -> None:
    say(f"State remote: {session.remote.name} ({session.remote.url}): fetch and push work")
    say(f"Store:        {seen.store_url}: reading and writing work")
    path = session.code.top / PATH
    if _write_sample(path):
        say(f"Workflows:    {path} is new; change it as you like")
    say("Next:         dstack run hello --local, or `dstack up` and `dstack run` in another terminal")


def _write_sample(path: Path) -> bool:
    """Whether there was none; what is there is never touched."""
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(SAMPLE)
    except FileExistsError:
        return False
    except OSError as error:
        msg = f"can't write {path}: {error.strerror}"
        raise Failed(msg) from error
    return True
