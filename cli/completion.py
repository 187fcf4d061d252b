"""`dstack completion`: what a shell must know to complete commands; and the answers it then asks for."""

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class, shell_complete

from cli.terminal import say
from dstack.model.errors import Invalid

EXAMPLE = """\b
Examples:
  dstack completion fish | source     # in ~/.config/fish/config.fish
  eval "$(dstack completion bash)"    # in ~/.bashrc
  eval "$(dstack completion zsh)"     # in ~/.zshrc, behind compinit"""

VARIABLE = "_DSTACK_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@click.command(epilog=EXAMPLE)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def command(*, shell: str | None) -> None:
    """Print a script that has your shell complete commands, options, workflows, variables, runs, jobs and tags.

    Runs, jobs and tags are those that dstack has seen last: nothing is fetched for it.
    """
    chosen = shell or Path(os.environ.get("SHELL", "")).name
    found = get_completion_class(chosen) if chosen in SHELLS else None
    if found is None:
        msg = f"which shell? $SHELL says {chosen!r}: name one of {', '.join(SHELLS)}"
        raise Invalid(msg)
    # Of bash, click asks the one on the PATH for its version; what is printed is the same for each.
    completer = found(click.Command("dstack"), {}, "dstack", VARIABLE)
    script = (completer.source_template % completer.source_vars()).strip()
    # Of fish, click takes what stands behind a comma in a sentence for something else than its end.
    say(script.replace('(string split "," $completion)', '(string split --max 1 "," $completion)'))


def answer(root: click.Command, instruction: str) -> int:
    """What the script asks for. Whatever goes wrong, the line that is being typed stays as it is."""
    try:
        return shell_complete(root, {}, "dstack", VARIABLE, instruction)
    except Exception:  # noqa: BLE001 (a door: nobody would know what a message in the middle of a line is about)
        return 1
