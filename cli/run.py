"""`dstack run`: the workflows of the work tree as subcommands, their variables as flags."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cli.definitions import Definitions, load_definitions
from cli.group import TERMS
from cli.run_options import RunOptions, merged, run_options
from dstack.model.errors import DstackError
from dstack.model.names import spelling
from dstack.model.variables import resolve_override

EXAMPLE = """\b
Examples:
  dstack run                          # which workflows there are
  dstack run train --help             # and which variables
  dstack run train --lr 0.1 --local   # here and now, without a controller
  dstack run train -d                 # only submit it"""

META = "cli.run.definitions"


class WorkflowCommand(click.Command):
    """One workflow. `flags` maps click's parameter names to variables."""

    def __init__(self, definitions: Definitions, workflow: str) -> None:
        """Its variables become options, unless one of ours has the name."""
        self.definitions = definitions
        ours = run_options()
        taken = {spelling(opt.lstrip("-")) for option in ours for opt in option.opts} | {"help", "h"}
        values = definitions.defaults(workflow)
        matrix = definitions.workflows.get(workflow).matrix
        shown = {name: f"one of {', '.join(values)}" for name, values in matrix.items()}
        shown |= {name: f"default: {value}" if value else "default: (empty)" for name, value in values.items()}
        names = [name for name in shown if spelling(name) not in taken]
        self.flags = {f"variable_{number}": name for number, name in enumerate(names)}
        super().__init__(
            workflow,
            callback=self._run,
            params=[*(_flag(key, name, shown[name]) for key, name in self.flags.items()), *ours],
            help=definitions.workflows.get(workflow).help or f"Run the workflow {workflow}.",
            epilog=f"\b\nExample:\n  dstack run {workflow}{_example(shown, names)}",
            context_settings={**TERMS, "token_normalize_func": lambda word: word.replace("_", "-")},
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click; a variable that there isn't is the user's trouble and no wrong usage, and gets a suggestion."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            word = error.option_name.lstrip("-")
            options = [opt for option in run_options() for opt in option.opts]
            near = difflib.get_close_matches(error.option_name, options, 1, 0.75)
            if not near and error.option_name.startswith("--"):
                found = self.definitions
                resolve_override(found.variables, found.workflows, self.name or "", word, "")
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Variables in a section of their own."""
        records = [(param.name in self.flags, param.get_help_record(ctx)) for param in self.get_params(ctx)]
        for title, wanted in (("Variables", True), ("Options", False)):
            lines = [record for flag, record in records if record and flag is wanted]
            if lines:
                with formatter.section(title):
                    formatter.write_dl(lines)

    def _run(self, **values: Any) -> int:  # noqa: ANN401 (click's own: as many kinds as there are options)
        ctx = click.get_current_context()
        given = [(self.flags[key], values.pop(key)) for key in list(values) if key in self.flags]
        options = merged(ctx.parent.params if ctx.parent else {}, values)
        overrides = [(name, value) for name, value in given if value is not None]
        return _submit(ctx.obj, self.definitions, self.name or "", [*overrides, *options.given], options)


class RunGroup(click.Group):
    """Its commands are the workflows."""

    def definitions(self, ctx: click.Context) -> Definitions:
        """Read once a call. Raises Invalid, Failed."""
        found: Definitions = ctx.meta.get(META) or load_definitions(ctx.obj or Path())
        ctx.meta[META] = found
        return found

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the file."""
        return list(self.definitions(ctx).workflows.names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """The workflow's command. Raises Invalid, with the nearest name, where there is none."""
        definitions = self.definitions(ctx)
        names = {spelling(name): name for name in definitions.workflows.names}
        return WorkflowCommand(definitions, definitions.workflows.get(names.get(spelling(cmd_name), cmd_name)).name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The workflows with their help; where they can't be read, why."""
        with formatter.section("Workflows"):
            try:
                workflows = self.definitions(ctx).workflows.by_name.values()
            except DstackError as error:
                formatter.write_text(str(error))
                return
            formatter.write_dl([(one.name, one.help) for one in workflows])


def _flag(key: str, name: str, text: str) -> click.Option:
    return click.Option([f"--{name}", key], metavar="VALUE", help=text)


def _example(shown: Mapping[str, str], names: list[str]) -> str:
    if not names:
        return ""
    return f" --{names[0]} {shown[names[0]].rpartition(': ')[2].removeprefix('one of ').partition(',')[0]}"


def _submit(
    folder: Path, definitions: Definitions, workflow: str, overrides: list[tuple[str, str]], options: RunOptions
) -> int:
    from cli.preparing import Order  # noqa: PLC0415 (help needs no pygit2)
    from cli.running import run  # noqa: PLC0415 (likewise)

    return run(folder, definitions.code, Order(workflow=workflow, overrides=tuple(overrides), options=options))


command = RunGroup(
    "run",
    params=run_options(),
    help="Run a workflow on your files as they stand, and follow it. The exit code follows the run.",
    epilog=EXAMPLE,
    no_args_is_help=True,
    subcommand_metavar="WORKFLOW [--VARIABLE VALUE]...",
    context_settings=TERMS,
)
