"""Writes docs/reference/: every command and every key, as the code itself describes them. `python -m docs.generate`."""

import inspect
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from cli.main import dstack
from cli.run import RunGroup
from cli.runner_door import runner
from dstack.model.forms import measured
from dstack.model.schema import config_schema, variables_schema, workflows_schema
from dstack.model.units import UNITS

FOLDER = Path(__file__).parent / "reference"
MADE = "<!-- Made by `python -m docs.generate`. Change the code, not this page. -->\n"
COMMANDS = f"""\
{MADE}
# All commands and options

What `--help` says, on one page. What the commands are like stands in [commands.md](../commands.md). Every command has
`-h`, `--help`.
"""
FILES = f"""\
{MADE}
# All keys of the files

What `dstack schema` tells editors, on one page. What the keys are for stands in [workflows.md](../workflows.md), and of
settings in [git.md](../git.md#shared-settings). A number or a truth value stands for a text, too, where
a text is asked for.
"""

Form = Mapping[str, Any]


def pages() -> dict[str, str]:
    """The text of each page, by its name."""
    commands = "".join(f"\n{part}" for group, name in _DOORS for part in _described(group, name))
    return {"commands.md": COMMANDS + commands, "files.md": FILES + "".join(_files())}


_DOORS: tuple[tuple[click.Group, str], ...] = ((dstack, "dstack"), (runner, "dstack-runner"))


def _described(command: click.Command, path: str) -> Iterator[str]:
    """A section for the command, and one for each below it."""
    yield _section(command, path)
    if isinstance(command, click.Group) and not isinstance(command, RunGroup):  # its commands are a user's workflows
        with click.Context(command) as ctx:
            for name in command.list_commands(ctx):
                below = command.get_command(ctx, name)
                if below is not None and not below.hidden:
                    yield from _described(below, f"{path} {name}")


def _section(command: click.Command, path: str) -> str:
    with click.Context(command, info_name=path) as ctx:
        usage = " ".join([path, *command.collect_usage_pieces(ctx)])
        records = [param.get_help_record(ctx) for param in command.params if isinstance(param, click.Option)]
    rows = [f"| `{_cell(names)}` | {_cell(text)} |" for names, text in filter(None, records)]
    parts = [f"## `{path}`", f"`{usage}`", _paragraphs(command.help or "")]
    if rows:
        parts.append("\n".join(["| option | |", "|---|---|", *rows]))
    if command.epilog:
        parts.append(f"```text\n{_example(command.epilog)}\n```")
    return "\n\n".join(parts) + "\n"


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text).replace("\b", "").split("\n\n"))


def _example(epilog: str) -> str:
    """The lines below `Example:`."""
    lines = inspect.cleandoc(epilog.partition("Example")[2]).splitlines()
    return textwrap.dedent("\n".join(lines[1:]))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _files() -> Iterator[str]:
    workflows: Form = workflows_schema()
    yield from _tables("`.dstack/workflows.yaml`", workflows["properties"]["workflows"]["items"])
    yield from _tables("`.dstack/variables.yaml`", variables_schema())
    yield from _tables("`config.yaml` on the branch `dstack/config`", config_schema())


def _tables(title: str, form: Form, level: int = 2) -> Iterator[str]:
    """A table of the mapping's keys, and one for each mapping in it."""
    needed = form.get("required", ())
    rows = [
        f"| `{name}` | {_takes(one)}{'; required' if name in needed else ''} | {one.get('description', '')} |"
        for name, one in form["properties"].items()
    ]
    yield "\n".join([f"\n{'#' * level} {title}\n", "| key | takes | |", "|---|---|---|", *rows]) + "\n"
    for name, one in form["properties"].items():
        inners: list[Form] = []
        for inner in _mappings(one):
            if inner["properties"] in [known["properties"] for known in inners]:
                continue  # the same by itself and in a list
            inners.append(inner)
            yield from _tables(f"`{name}`" if level == 2 else f"{title}, `{name}`", inner, 3)  # noqa: PLR2004 (the top)


def _mappings(form: Form) -> Iterator[Form]:
    """The mappings with known keys that a value may be, or be a list of."""
    if form.get("properties"):
        yield form
    for inner in [*form.get("anyOf", ()), *([form["items"]] if "items" in form else [])]:
        yield from _mappings(inner)


_KNOWN = {measured(UNITS)["pattern"]: "a duration", measured((), size=True)["pattern"]: "a size"}
_KINDS = {"string": "text", "boolean": "`true` or `false`", "number": "a number", "integer": "a whole number"}


def _takes(form: Form) -> str:
    """What may be given, in words."""
    if "anyOf" in form:
        return ", or ".join(_takes(one) for one in form["anyOf"] if one != {"type": "null"})
    if "enum" in form:
        return ", ".join(f"`{one}`" for one in form["enum"])
    kind = form["type"][0] if isinstance(form["type"], list) else form["type"]
    if kind == "array":
        return f"a list: {_takes(form['items'])}"
    if kind == "object":
        return _mapping(form)
    return _KNOWN.get(form.get("pattern"), _KINDS[kind]) + _range(form)


def _mapping(form: Form) -> str:
    if form.get("properties"):
        return "a mapping, below"
    return f"a mapping of names: {_takes(form['additionalProperties'])}"


def _range(form: Form) -> str:
    least, most = form.get("minimum", form.get("exclusiveMinimum")), form.get("maximum")
    return f", {least} to {most}" if most is not None else ""


def main() -> None:
    """Write them."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
