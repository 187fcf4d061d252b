"""`dstack run`: the workflows of the work tree as subcommands, their variables as flags."""

import difflib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from cli.definitions import Definitions, load_definitions
from cli.group import TERMS
from cli.run_from import asked_source, with_workflow
from cli.run_options import RunOptions, merged, run_options
from dstack.model.choices import Flag
from dstack.model.errors import DstackError
from dstack.model.names import spelling
from dstack.model.variables import GLOBAL

EXAMPLE = """\b
Examples:
  dstack run                          # which workflows there are
  dstack run train --help             # and which variables
  dstack run train --lr 0.1 --local   # here and now, without a controller
  dstack run train --matrix lr=0.1,1  # a job for each of these values
  dstack run --from fast-rabbit-1     # the same once more, code and variables
  dstack run train -d                 # only submit it"""

META = "cli.run.definitions"
OPTIONS = "Options"


class WorkflowCommand(click.Command):
    """One workflow. `flags` maps click's parameter names to what they set."""

    def __init__(self, definitions: Definitions, workflow: str) -> None:
        """What can be set becomes options; by its section's name too, and only so where one of ours has its own."""
        self.definitions = definitions
        ours = run_options()
        taken = {spelling(opt.lstrip("-")) for option in ours for opt in option.opts} | {"help", "h"}
        known = definitions.flags(workflow).all()
        self.flags = {f"variable_{number}": flag for number, flag in enumerate(known)}
        options = [_option(key, flag, workflow, taken) for key, flag in self.flags.items()]
        aliases = [_alias(key, flag) for key, flag in self.flags.items() if _is_near(flag, workflow, taken)]
        super().__init__(
            workflow,
            callback=self._run,
            params=[*options, *aliases, *ours],
            help=definitions.workflows.get(workflow).help or f"Run the workflow {workflow}.",
            epilog=f"\b\nExample:\n  dstack run {workflow}{_example(options, known)}",
            context_settings={**TERMS, "token_normalize_func": lambda word: word.replace("_", "-")},
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click; a variable that there isn't is the user's trouble and no wrong usage, and gets a suggestion."""
        typed = tuple(args)  # click takes them out one by one
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = _as_typed(error.option_name, typed)
            word = name.lstrip("-")
            options = [opt for option in run_options() for opt in option.opts]
            near = difflib.get_close_matches(error.option_name, options, 1, 0.75)
            if not near and error.option_name.startswith("--"):
                self.definitions.flags(self.name or "").find(word)
            raise click.NoSuchOption(name, possibilities=error.possibilities, ctx=error.ctx) from error

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Variables in sections of their own: the workflow's, and those of each it depends on."""
        sections: dict[str, list[tuple[str, str]]] = {"Variables": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record:
                sections.setdefault(self._title(param.name), []).append(record)
        for title in (*(title for title in sections if title != OPTIONS), OPTIONS):
            if sections[title]:
                with formatter.section(title):
                    formatter.write_dl(sections[title])

    def _title(self, key: str | None) -> str:
        flag = self.flags.get(key or "")
        if flag is None:
            return OPTIONS
        return "Variables" if flag.section in {self.name, GLOBAL} else f"Variables of {flag.section}"

    def _run(self, **values: Any) -> int:  # noqa: ANN401 (click's own: as many kinds as there are options)
        ctx = click.get_current_context()
        given = [(flag.full, values.pop(key)) for key, flag in self.flags.items()]
        given += [(flag.full, values.pop(f"{key}_too", None)) for key, flag in self.flags.items()]
        options = merged(ctx.parent.params if ctx.parent else {}, values)
        overrides = [(name, value) for name, value in given if value is not None]
        return _submit(ctx.obj, self.definitions, self.name or "", [*overrides, *options.given], options)


class RunGroup(click.Group):
    """Its commands are the workflows: of the work tree or, with --from, of that run."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click; --from needs no workflow, for the run had one."""
        source = asked_source(args)
        if source and not ctx.resilient_parsing:
            from cli.run_source import definitions_of  # noqa: PLC0415 (only --from needs it)

            ctx.meta[META], workflow = definitions_of(ctx.obj or Path(), source)
            args = with_workflow(args, workflow)
        return super().parse_args(ctx, args)

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

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The workflows first: that is what one looks for."""
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The workflows with their help; where they can't be read, why."""
        with formatter.section("Workflows"):
            try:
                workflows = self.definitions(ctx).workflows.by_name.values()
            except DstackError as error:
                formatter.write_text(str(error))
                return
            formatter.write_dl([(one.name, one.help) for one in workflows])


def _as_typed(option: str, args: Sequence[str]) -> str:
    """The option before its underscores were read as dashes."""
    words = (arg.partition("=")[0] for arg in args)
    return next((word for word in words if word.replace("_", "-") == option), option)


def _is_near(flag: Flag, workflow: str, taken: set[str]) -> bool:
    """Whether the flag is known by its name alone, as one of the workflow itself."""
    return flag.plain and flag.section in {workflow, GLOBAL} and spelling(flag.name) not in taken


def _option(key: str, flag: Flag, workflow: str, taken: set[str]) -> click.Option:
    text = f"one of {', '.join(flag.values)}" if flag.default is None else f"default: {flag.default or '(empty)'}"
    names = [f"--{flag.name}"] if flag.plain and spelling(flag.name) not in taken else []
    if not _is_near(flag, workflow, taken):
        names.append(f"--{flag.full}")
    return click.Option([*names, key], metavar="VALUE", help=text)


def _alias(key: str, flag: Flag) -> click.Option:
    return click.Option([f"--{flag.full}", f"{key}_too"], metavar="VALUE", hidden=True)


def _example(options: list[click.Option], flags: tuple[Flag, ...]) -> str:
    if not options:
        return ""
    value = (flags[0].values[0] if flags[0].default is None else flags[0].default) or "VALUE"
    return f" {options[0].opts[0]} {shlex.quote(value)}"


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
