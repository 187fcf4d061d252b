"""The options of `dstack run`: the same before and behind the workflow's name."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import click

from cli.completing import complete_run


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a run is to be made, sent and followed. `given` (by `--var`) and `matrix` are (name, text)."""

    local: bool = False
    detach: bool = False
    dry_run: bool = False
    name: str | None = None
    tag: str | None = None
    no_cache: bool = False
    priority: int = 0
    only_committed: bool = False
    no_untracked: bool = False
    include: tuple[str, ...] = ()
    source: str | None = None
    allow_env: tuple[str, ...] = ()
    given: tuple[tuple[str, str], ...] = ()
    matrix: tuple[tuple[str, str], ...] = ()
    yes: bool = False
    as_json: bool = False


def run_options() -> list[click.Parameter]:
    """Click's options, made anew for each command."""
    return [
        click.Option(["--local"], is_flag=True, help="Controller and runner in this process, for this run alone."),
        click.Option(["-d", "--detach"], is_flag=True, help="Return at once; print the run's name."),
        click.Option(["--dry-run"], is_flag=True, help="Say what would be run; push nothing."),
        click.Option(["--name"], metavar="NAME", help="The run's name; otherwise one is made up."),
        click.Option(["-t", "--tag"], metavar="TAG", help="Give the run this tag when it is DONE."),
        click.Option(["--no-cache"], is_flag=True, help="Run everything, also what an equal job has done before."),
        click.Option(["--priority"], type=int, metavar="N", help="A higher one goes first; 0 by default."),
        click.Option(["--only-committed"], is_flag=True, help="Run HEAD, without what isn't committed."),
        click.Option(["--no-untracked"], is_flag=True, help="Leave out files that git doesn't know."),
        click.Option(
            ["--include"], multiple=True, metavar="PATH", help="Send it though it is large, secret or ignored."
        ),
        click.Option(
            ["--from", "source"],
            metavar="RUN",
            shell_complete=complete_run,
            help="The code and variables of that run again, whatever your folder holds; flags change variables.",
        ),
        click.Option(["--allow-env"], multiple=True, metavar="NAME", help="Allow this name in `env`: it is no secret."),
        click.Option(
            ["--var", "given"],
            multiple=True,
            metavar="NAME=VALUE",
            callback=_pairs,
            help="Set a variable, where an option has its name.",
        ),
        click.Option(
            ["--matrix"],
            multiple=True,
            metavar="NAME=V1,V2…",
            callback=_pairs,
            help="A job for each value of a variable; quote one that has a comma: '\"a,b\",c'.",
        ),
        click.Option(["-y", "--yes"], is_flag=True, help="Don't ask."),
        click.Option(["--json", "as_json"], is_flag=True, help="With --detach or --dry-run: print JSON."),
    ]


def merged(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> RunOptions:
    """What was given before the workflow's name, and behind it: the latter wins; lists are joined."""
    values: dict[str, Any] = {}
    for field in fields(RunOptions):
        for value in (outer.get(field.name), inner.get(field.name)):
            if isinstance(value, tuple):
                values[field.name] = (*values.get(field.name, ()), *value)
            elif value not in (None, False):
                values[field.name] = value
    return RunOptions(**values)


def _pairs(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    for value in values:
        if "=" not in value:
            msg = f"{value!r} has no =: write NAME=VALUE"
            raise click.BadParameter(msg)
    pairs = (value.partition("=") for value in values)
    return tuple((name, value) for name, _, value in pairs)
