"""`dstack config`: the settings that hold here, where each comes from, and how to change them."""

import os
from pathlib import Path

import click
import msgspec

from cli.group import TERMS
from cli.session import Seen, open_session
from cli.shared_settings import change_settings
from cli.table import Column, show_table
from cli.terminal import say
from dstack.model import personal
from dstack.model.errors import Invalid
from dstack.model.settings import Settings
from dstack.personal import file_of, layers_of, write_file

EXAMPLE = """\b
Examples:
  dstack config                                # all that holds here, and why
  dstack config get store
  dstack config set lease 300                  # for all: a commit on the branch dstack/config
  dstack config set region eu-central-1 --personal
  dstack config set region --unset"""

COLUMNS = (Column(title="SETTING"), Column(title="VALUE", least=12), Column(title="FROM", least=8))


Shown = str | float | bool | dict[str, str | bool] | list[dict[str, list[str]]] | None


class SettingLine(msgspec.Struct, frozen=True, kw_only=True):
    """`config list --json`. `origin`: `shared`, `default`, the path of a file, or a variable's name."""

    key: str
    value: Shown
    origin: str


@click.group(epilog=EXAMPLE, context_settings=TERMS, invoke_without_command=True, help="Show and change settings.")
@click.pass_context
def command(ctx: click.Context) -> None:
    """Without a word more, list them."""
    if ctx.invoked_subcommand is None:
        _list(ctx.obj, as_json=False)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_(folder: Path, *, as_json: bool) -> None:
    """All settings that hold here, and where each comes from."""
    _list(folder, as_json=as_json)


@command.command("get")
@click.argument("key")
@click.pass_obj
def get(folder: Path, *, key: str) -> None:
    """Print the value of one setting; nothing where it has none."""
    (line,) = (line for line in _lines(open_session(folder).poll()) if line.key == personal.known_key(key))
    if line.value not in (None, {}, []):
        say(_text(line))


@command.command("set")
@click.argument("key")
@click.argument("value", required=False)
@click.option("--personal", "mine", is_flag=True, help="For you on this machine alone, not for all.")
@click.option("--unset", is_flag=True, help="Take it out again.")
@click.pass_obj
def set_(folder: Path, *, key: str, value: str | None, mine: bool, unset: bool) -> None:
    """Change a setting for all, or with --personal for you."""
    if (value is None) != unset:
        msg = "give a value, or --unset"
        raise click.UsageError(msg)
    name = personal.known_key(key)
    wanted = None if value is None else personal.read(name, value, "dstack config set")
    if mine:
        _set_personal(name, wanted)
        return
    if name == "store" and wanted is not None:
        msg = "a store is checked and made ready first: `dstack init --store URL` changes it for all"
        raise Invalid(msg)
    if name in personal.PERSONAL_ONLY:
        msg = f"{name} is a file of this machine, which nobody else is to choose: add --personal"
        raise Invalid(msg)
    default = getattr(Settings(), name)
    session = open_session(folder)
    session.poll().known_repository()
    change_settings(
        session,
        lambda before: msgspec.structs.replace(before, **{name: default if unset else wanted}),
        f"{'Unset' if unset else 'Set'} {name}",
    )
    say(f"{name} is {'not set any more' if unset else value}, for all")


def _set_personal(name: str, wanted: object) -> None:
    path = file_of(os.environ)
    if name in personal.SHARED_ONLY:
        msg = f"{name} is the same for all: leave --personal out"
        raise Invalid(msg)
    layers = [layer for layer in layers_of(os.environ) if layer.origin == str(path)]
    values = {key: value for layer in layers for key, value in layer.values.items() if key != name}
    write_file(path, values if wanted is None else {**values, name: wanted})
    say(f"{name} is {'not set any more' if wanted is None else wanted}, for you on this machine ({path})")


def _list(folder: Path, *, as_json: bool) -> None:
    lines = _lines(open_session(folder).poll())
    if as_json:
        say(msgspec.json.encode(lines).decode())
    else:
        show_table(COLUMNS, [(line.key, _text(line), line.origin) for line in lines])


def _lines(seen: Seen) -> list[SettingLine]:
    layers = layers_of(os.environ)
    return [
        SettingLine(
            key=key,
            value=_value(seen, key),
            origin=personal.origin(key, seen.shared, layers),
        )
        for key in Settings.__struct_fields__
    ]


def _value(seen: Seen, key: str) -> Shown:
    if key == "store":
        return seen.settings.store or seen.store_url
    value = getattr(seen.settings, key)
    found: Shown = msgspec.to_builtins(list(value) if isinstance(value, tuple) else value)
    return found


def _text(line: SettingLine) -> str:
    if line.key in personal.AS_YAML and isinstance(line.value, dict):
        return ", ".join(
            f"{key}: {str(value).lower() if isinstance(value, bool) else value}" for key, value in line.value.items()
        )
    if isinstance(line.value, bool | list):
        return msgspec.json.encode(line.value).decode() if line.value != [] else ""
    if isinstance(line.value, dict):
        return ", ".join(f"{old} → {new}" for old, new in line.value.items())
    return "" if line.value is None else f"{line.value:g}" if isinstance(line.value, float) else line.value
