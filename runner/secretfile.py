"""The secrets of a runner's machine: a file of mode 0600 in its state folder. They are never in git or a store."""

import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from dstack.model.codec import Value, decode, encode
from dstack.model.errors import Failed, Invalid
from dstack.model.problems import shown

FILE = "secrets.json"
LIMIT = 8 * 1024 * 1024
# It goes into the environment of a process: Linux takes 128 KiB a variable.
VALUE_LIMIT = 100 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}", re.ASCII)
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class _Kept(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: int = 1
    secrets: dict[str, str] = {}


def read_secrets(folder: Path) -> Mapping[str, str]:
    """All secrets, by name. Raises Failed where others than the owner could have read them, Invalid."""
    path = folder / FILE
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(LIMIT + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        msg = f"the secrets in {path} can't be read: {error.strerror}"
        raise Failed(msg) from error
    if mode & _OTHERS:
        msg = f"others can read the secrets in {path}: `chmod 600 {path}`, and change those that may have been seen"
        raise Failed(msg)
    return decode(data, _Kept, str(path), limit=LIMIT).secrets


def set_secret(folder: Path, name: str, value: str) -> None:
    """Keep a secret under a name, over one that was there. Raises Invalid, Failed."""
    if not _NAME.fullmatch(name):
        msg = f"{shown(name)} can't name a secret: it becomes a variable of the environment, so use A-Z, 0-9 and _"
        raise Invalid(msg)
    if not value or "\0" in value or len(value.encode()) > VALUE_LIMIT:
        msg = f"the secret {name} is {'empty' if not value else 'too long, or holds a NUL byte'}: it was not kept"
        raise Invalid(msg)
    _write(folder, {**read_secrets(folder), name: value})


def remove_secret(folder: Path, name: str) -> bool:
    """Forget a secret. False where there is none of this name. Raises Failed."""
    known = dict(read_secrets(folder))
    if known.pop(name, None) is None:
        return False
    _write(folder, known)
    return True


def _write(folder: Path, known: Mapping[str, str]) -> None:
    scratch = folder / f"{FILE}.{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(scratch, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "wb") as file:
            file.write(encode(_Kept(secrets=dict(sorted(known.items())))) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(folder / FILE)
    except OSError as error:
        msg = f"the secrets can't be written to {folder}: {error.strerror}"
        raise Failed(msg) from error
    finally:
        scratch.unlink(missing_ok=True)
