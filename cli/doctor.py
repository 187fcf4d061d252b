"""`dstack doctor`: checks everything dstack needs, and says how to mend it."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import msgspec

from cli import checks
from cli.checks import Check, Result
from cli.docker_checks import docker_checks
from cli.door import GOOD, TROUBLE
from cli.reading import Reader
from cli.remote_checks import forge_check, pace_check, wakeups_check
from cli.session import open_session
from cli.terminal import clean, coloured, hanging, is_terminal, say, width
from cli.trust_checks import signing_check
from dstack.model.errors import DstackError

EXAMPLE = """\b
Example:
  dstack doctor                # exit code 1 where something keeps dstack from working"""

COLOURS = {Result.GOOD: "green", Result.ODD: "yellow", Result.BAD: "red"}
WIDTH = 10
BEFORE = 7 + 2 + 2


@click.command(epilog=EXAMPLE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(folder: Path, *, as_json: bool) -> int:
    """Check git, the state remote, store, Docker, controller and runners."""
    return report(all_checks(folder), as_json=as_json)


def report(looked_at: Iterable[Check], *, as_json: bool, wide: int = WIDTH) -> int:
    """Print each as it is done; the exit code. `wide`: columns for their names."""
    found: list[Check] = []
    for check in looked_at:
        found.append(check)
        if not as_json:
            text = clean(check.text)
            # What is no terminal gets one line for each check.
            told = hanging(text, BEFORE + wide, width()) if is_terminal() else text
            say(f"{coloured(f'{check.result:<7}', COLOURS[check.result])}  {check.name:<{wide}}  {told}")
    if as_json:
        say(msgspec.json.encode(found).decode())
    return TROUBLE if any(check.result is Result.BAD for check in found) else GOOD


def all_checks(folder: Path) -> Iterator[Check]:
    """Each as it is done. What can't be looked at because of an earlier one is left out."""
    yield checks.git_check(folder)
    yield from docker_checks()
    try:
        session = open_session(folder)
        seen = session.poll()
    except DstackError as error:
        yield Check(name="repository", result=Result.BAD, text=str(error))
        return
    yield Check(
        name="repository", result=Result.GOOD, text=f"state remote: {session.remote.name} ({session.remote.url})"
    )
    if session.remote.path:
        yield checks.lock_check(session.remote.path)
    yield checks.push_check(session)
    if seen.repository is None:
        yield Check(name="set up", result=Result.ODD, text="not yet: `dstack init` does it, and so does the first run")
        return
    yield pace_check(session, seen)
    if seen.settings.forge is not None:
        yield forge_check(session, seen.settings.forge)
    if seen.settings.controller_url is not None:
        yield wakeups_check(seen, seen.settings.controller_url)
    yield signing_check(session, seen.settings)
    yield checks.store_check(seen)
    yield checks.home_check(seen)
    yield checks.runners_check(Reader(session), seen)
    yield checks.records_check(session)
