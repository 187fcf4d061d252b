"""A click group that imports a command only when it is called: `dstack --help` stays quick."""

import difflib
import importlib
from collections.abc import Mapping

import click
from click.shell_completion import CompletionItem

from cli.index import Listed

TERMS = {"help_option_names": ["-h", "--help"]}


class LazyGroup(click.Group):
    """Commands by name from `index`, which also has their lines of help."""

    index: Mapping[str, Listed] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Names in the order of the index."""
        return [name for name, listed in self.index.items() if not listed.hidden]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 (click's signature)
        """Import the command; None where there is none of that name."""
        listed = self.index.get(cmd_name)
        if listed is None:
            return None
        command: click.Command = importlib.import_module(listed.module).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click, with a suggestion for a misspelt name."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in self.index:
            near = difflib.get_close_matches(name, self.index, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"There is no command {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Options, and the list of commands, without importing any."""
        options = click.Command.shell_complete(self, ctx, incomplete) if incomplete.startswith("-") else []
        listed = [
            (name, one.help) for name, one in self.index.items() if not one.hidden and name.startswith(incomplete)
        ]
        return [*options, *(CompletionItem(name, help=text) for name, text in listed)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 (likewise)
        """The list, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, listed.help) for name, listed in self.index.items() if not listed.hidden])
