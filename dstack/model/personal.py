"""Settings of one user or machine, over the shared ones: a file of theirs, then `DSTACK_…` of the environment. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import indent

import msgspec

from dstack.model.errors import Invalid
from dstack.model.problems import nearest, shown
from dstack.model.settings import PLACE, Settings, parse_settings, settings_text

# The lease, the retention, where stores have moved, what is reported and who may start runs mean the same to all.
SHARED_ONLY = frozenset({"lease", "stores", "retention", "forge", "triggers"})
# A file of this machine; and nobody who can push is to say whom it trusts.
PERSONAL_ONLY = frozenset({"signers"})
# Given as YAML.
AS_YAML = frozenset({"forge", "signed", "sign", "triggers"})
KEYS = tuple(name for name in Settings.__struct_fields__ if name not in SHARED_ONLY)
SHARED, DEFAULT = "shared", "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Some settings, and where they come from, for people."""

    origin: str
    values: Mapping[str, object]


def variable(key: str) -> str:
    """The variable of the environment that sets it."""
    return f"DSTACK_{key.upper()}"


def from_file(text: bytes, path: str) -> Layer:
    """The user's own file. Raises Invalid, naming it."""
    try:
        settings = parse_settings(text)
    except Invalid as error:
        raise Invalid(str(error).replace(PLACE, path)) from error
    given = _given(settings)
    for key in given:
        if key in SHARED_ONLY:
            msg = f"{path}: {key} is the same for all: it stands in {PLACE}; `dstack config set {key} VALUE` changes it"
            raise Invalid(msg)
    return Layer(origin=path, values=given)


def from_environment(environ: Mapping[str, str]) -> tuple[Layer, ...]:
    """A layer for each `DSTACK_…` that is a setting. Raises Invalid, naming the variable."""
    given = {key: value for key in KEYS if (value := environ.get(variable(key)))}
    return tuple(
        Layer(origin=variable(key), values={key: read(key, value, variable(key))}) for key, value in given.items()
    )


def overlaid(shared: Settings, layers: tuple[Layer, ...]) -> Settings:
    """The settings that hold here: later layers win. That runs must be signed can be demanded, and not taken back."""
    given = {key: value for layer in layers for key, value in layer.values.items()}
    if shared.signed:
        given.pop("signed", None)
    if shared.signers is not None:
        given.setdefault("signers", None)
    return msgspec.structs.replace(shared, **given) if given else shared


def origin(key: str, shared: Settings, layers: tuple[Layer, ...]) -> str:
    """Where the value that holds comes from."""
    named = [layer.origin for layer in layers if key in layer.values]
    return named[-1] if named else SHARED if key in _given(shared) else DEFAULT


def known_key(word: str) -> str:
    """The setting that is meant; dashes are as good as underscores. Raises Invalid, with the nearest."""
    key = word.replace("-", "_").lower()
    if key in Settings.__struct_fields__:
        return key
    msg = f"there is no setting {shown(word)}{nearest(key, Settings.__struct_fields__)}; `dstack config` lists all"
    raise Invalid(msg)


def read(key: str, value: str, where: str) -> object:
    """The value as the setting takes it. Raises Invalid, naming `where` it stands."""
    if key == "stores":
        msg = "`stores` is written by `dstack init --store NEW --copied`, when all of a store has been copied there"
        raise Invalid(msg)
    if key in AS_YAML:
        return _read_yaml(key, value, where)
    try:
        number = float(value) if key == "lease" else None
        return getattr(parse_settings(settings_text(_made(key, value if number is None else number)).encode()), key)
    except (Invalid, ValueError, msgspec.ValidationError) as error:
        said = str(error).removeprefix(f"{PLACE} can't be read: ").removeprefix(f"{PLACE}: ")
        msg = f"{where}: {key} can't be {shown(value)}: {said}"
        raise Invalid(msg) from error


def _read_yaml(key: str, value: str, where: str) -> object:
    """Indented, so that it can't be but this key's."""
    try:
        return getattr(parse_settings(f"{key}:\n{indent(value, '  ', lambda _: True)}\n".encode()), key)
    except Invalid as error:
        msg = f"{where}: {key} can't be {shown(value)}: {error}"
        raise Invalid(msg) from error


def _made(key: str, value: object) -> Settings:
    return msgspec.structs.replace(Settings(), **{key: value})


def _given(settings: Settings) -> dict[str, object]:
    defaults = Settings()
    return {
        key: value for key in Settings.__struct_fields__ if (value := getattr(settings, key)) != getattr(defaults, key)
    }
