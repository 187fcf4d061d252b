"""`dstack untag`: takes a tag away; what it named is then kept no longer than others."""

from pathlib import Path

import click

from cli.completing import complete_tag
from cli.session import open_session
from cli.tagging import move, named, tagged
from cli.terminal import clean, say

EXAMPLE = """\b
Example:
  dstack untag v1.0"""


@click.command(epilog=EXAMPLE)
@click.argument("tag", metavar="TAG", shell_complete=complete_tag)
@click.pass_obj
def command(folder: Path, *, tag: str) -> None:
    """Take a tag away. Runs that depended on it keep what they were made with."""
    session = open_session(folder)
    seen = session.poll()
    before = named(session, seen, tag)
    if not before:
        tagged(session, seen, tag)
    move(session, seen, tag, None)
    say(clean(f"{tag} is no tag any more; it was {before}"))
