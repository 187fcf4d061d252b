"""`dstack-runner install`: a systemd unit that starts this machine's runner."""

import os
import sys
from pathlib import Path

import click

from cli.systemd import NAME, unit, unit_folder
from cli.terminal import say
from dstack.model.errors import Failed, Invalid
from runner.config import read_config, state_folder

EXAMPLE = """\b
Examples:
  dstack-runner install --print          # only show the unit
  dstack-runner install                  # of this user
  sudo dstack-runner --state /var/lib/dstack-runner install --system"""


@click.command(epilog=EXAMPLE)
@click.option("--system", is_flag=True, help="For the machine instead of this user; its jobs run as root.")
@click.option("--print", "only_print", is_flag=True, help="Show the unit and write nothing.")
@click.pass_obj
def command(state: Path | None, *, system: bool, only_print: bool) -> None:
    """Write a systemd unit for this runner, and say what to do with it."""
    folder = (state or state_folder(os.environ)).absolute()
    config = read_config(folder)
    if config is None or config.remote is None:
        msg = "this runner has no state remote yet: `dstack-runner config --remote PATH|URL`, then install it"
        raise Invalid(msg)
    argv = (sys.executable, "-P", "-m", "cli.runner_door", "--state", str(folder), "start")
    text = unit(argv, os.environ, system=system)
    if only_print:
        say(text.rstrip("\n"))
        return
    path = unit_folder(os.environ, system=system) / NAME
    write(path, text)
    control = "systemctl" if system else "systemctl --user"
    say(f"Written: {path}")
    say("Now:")
    say(f"  {control} daemon-reload && {control} enable --now dstack-runner")
    if not system:
        say("  loginctl enable-linger         # or it, and its jobs, end when you log out")


def write(path: Path, text: str) -> None:
    """Write the unit whole. Raises Failed."""
    scratch = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(text)
        scratch.replace(path)
    except OSError as error:
        msg = f"{path} can't be written: {error.strerror} (`--system` needs root; `--print` shows the unit)"
        raise Failed(msg) from error
