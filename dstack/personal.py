"""The user's own settings: `dstack/config.yaml` in their configuration folder (XDG base directory specification)."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from dstack.model.errors import Failed
from dstack.model.personal import Layer, from_environment, from_file
from dstack.model.settings import CONFIG_LIMIT
from dstack.model.yaml_text import yaml_text


def file_of(environ: Mapping[str, str]) -> Path:
    """Where they stand; a relative XDG_CONFIG_HOME is to be ignored."""
    config = Path(environ.get("XDG_CONFIG_HOME", ""))
    home = config if config.is_absolute() else Path(environ.get("HOME") or Path.home()) / ".config"
    return home / "dstack" / "config.yaml"


def state_folder(environ: Mapping[str, str]) -> Path:
    """Where what is kept for this user goes (XDG base directory specification)."""
    state = Path(environ.get("XDG_STATE_HOME", ""))
    home = state if state.is_absolute() else Path(environ.get("HOME") or Path.home()) / ".local" / "state"
    return home / "dstack"


def layers_of(environ: Mapping[str, str]) -> tuple[Layer, ...]:
    """All of the user's, the file first. Raises Invalid, Failed."""
    path = file_of(environ)
    try:
        with path.open("rb") as file:
            text = file.read(CONFIG_LIMIT + 1)
    except FileNotFoundError:
        return from_environment(environ)
    except OSError as error:
        msg = f"your settings {path} can't be read: {error.strerror}"
        raise Failed(msg) from error
    return (from_file(text, str(path)), *from_environment(environ))


def write_file(path: Path, values: Mapping[str, object]) -> None:
    """Write the user's file anew. Raises Failed."""
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(scratch, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(yaml_text(dict(sorted(values.items()))))
        scratch.replace(path)
    except OSError as error:
        msg = f"your settings {path} can't be written: {error.strerror}"
        raise Failed(msg) from error
