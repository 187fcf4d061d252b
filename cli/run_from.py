"""What `dstack run --from RUN` says on the command line, before anything is parsed. Pure."""

from collections.abc import Sequence

import click

from cli.run_options import run_options

FROM = "--from"


def asked_source(args: Sequence[str]) -> str | None:
    """The run that --from names, wherever it stands; None where it doesn't."""
    for place, word in enumerate(args):
        if word == "--":
            break
        if word == FROM and place + 1 < len(args):
            return args[place + 1]
        if word.startswith(f"{FROM}="):
            return word.partition("=")[2]
    return None


def with_workflow(args: Sequence[str], workflow: str) -> list[str]:
    """The arguments, with the workflow of the run first where no other one is named."""
    options = {opt: option for option in run_options() for opt in option.opts if isinstance(option, click.Option)}
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            return list(args)
        name, equals, _ = word.partition("=")
        option = options.get(name)
        if option is None:  # a variable, or --help: both are of a workflow
            break
        if not equals and not option.is_flag and rest:
            rest.pop(0)
    return [workflow, *args]
