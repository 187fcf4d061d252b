"""`dstack-runner uninstall`: removes the systemd unit that `install` has written."""

import os

import click

from cli.systemd import NAME, unit_folder
from cli.terminal import say
from dstack.model.errors import Failed

EXAMPLE = """\b
Example:
  dstack-runner uninstall      # before: systemctl --user disable --now dstack-runner"""


@click.command(epilog=EXAMPLE)
@click.option("--system", is_flag=True, help="The machine's unit instead of this user's.")
def command(*, system: bool) -> None:
    """Remove the unit. The runner's settings and state folder stay."""
    path = unit_folder(os.environ, system=system) / NAME
    try:
        path.unlink()
    except FileNotFoundError:
        say(f"There is no {path}: nothing to remove.")
        return
    except OSError as error:
        msg = f"{path} can't be removed: {error.strerror} (`--system` needs root)"
        raise Failed(msg) from error
    control = "systemctl" if system else "systemctl --user"
    say(f"Removed: {path}")
    say(f"If it still runs: {control} stop dstack-runner; then {control} daemon-reload")
