"""`dstack-runner secret`: the secrets that this machine gives to jobs which ask for them by name."""

import os
import sys
from pathlib import Path

import click

from cli.group import TERMS
from cli.terminal import say, tell
from dstack.model.errors import Invalid
from runner.config import state_folder
from runner.secretfile import read_secrets, remove_secret, set_secret

EXAMPLE = """\b
Examples:
  dstack-runner secret set HF_TOKEN              # asks for it, and shows nothing
  dstack-runner secret set HF_TOKEN < token.txt
  dstack-runner secret list"""


@click.group(
    epilog=EXAMPLE, context_settings=TERMS, help="Secrets for jobs: kept on this machine, and nowhere else, by name."
)
def command() -> None:
    """Only its commands do anything."""


@command.command("set")
@click.argument("name")
@click.pass_obj
def set_(state: Path | None, *, name: str) -> None:
    """Keep a secret. Jobs that begin from now on get it; it is asked for, or read from standard input."""
    value = _asked(name) if sys.stdin.isatty() else sys.stdin.read().removesuffix("\n").removesuffix("\r")
    set_secret(_folder(state), name, value)
    say(f"{name} is kept on this machine: jobs get it whose workflow says `secrets: [{name}]`")


@command.command("list")
@click.pass_obj
def list_(state: Path | None) -> None:
    """Names alone; no value is ever shown."""
    names = sorted(read_secrets(_folder(state)))
    for name in names:
        say(name)
    if not names:
        tell("This machine keeps no secrets: `dstack-runner secret set NAME` adds one.")


@command.command("remove")
@click.argument("name")
@click.pass_obj
def remove(state: Path | None, *, name: str) -> None:
    """Forget a secret."""
    if not remove_secret(_folder(state), name):
        msg = f"this machine keeps no secret {name!r}: `dstack-runner secret list` names those it has"
        raise Invalid(msg)
    say(f"{name} is forgotten")


def _asked(name: str) -> str:
    answer: str = click.prompt(f"{name} (it isn't shown)", hide_input=True, err=True, default="", show_default=False)
    return answer


def _folder(state: Path | None) -> Path:
    return state or state_folder(os.environ)
