"""`dstack-runner drain`: let this machine's runner finish what it has begun, and end."""

import os
import time
from pathlib import Path

import click

from cli.terminal import say
from dstack.model.errors import Failed
from runner.config import state_folder
from runner.statefolder import ask_to_drain, forget_drain, is_asked_to_drain, is_held

EXAMPLE = """\b
Examples:
  dstack-runner drain --wait       # then the machine can be switched off
  dstack-runner drain --cancel     # take jobs again"""

LOOK_SECONDS = 0.2


@click.command(epilog=EXAMPLE)
@click.option("--wait", is_flag=True, help="Come back when the runner has ended.")
@click.option("--cancel", is_flag=True, help="Take it back: jobs are taken again.")
@click.pass_obj
def command(state: Path | None, *, wait: bool, cancel: bool) -> None:
    """Have the running daemon finish what it has begun, take no more, and end."""
    folder = state or state_folder(os.environ)
    if cancel:
        forget_drain(folder)
        say("The runner takes jobs again." if is_held(folder) else "The next start takes jobs.")
        return
    if not is_held(folder):
        msg = f"no runner works with {folder}, so there is none to drain: `dstack-runner start` starts it"
        raise Failed(msg)
    ask_to_drain(folder)
    if not wait:
        say("The runner takes no more jobs, and ends when those it has begun have ended: `dstack-runner status` tells.")
        return
    while is_held(folder):
        time.sleep(LOOK_SECONDS)
    if is_asked_to_drain(folder):
        msg = "the runner has ended before it was done: start it again, and it goes on draining"
        raise Failed(msg)
    say("The runner has ended, with nothing in hand.")
