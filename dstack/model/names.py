"""Names of variables and of environment variables: which are legal, and what a shell sees of them."""

import itertools
import re
from collections.abc import Iterable, Iterator

MAX_NAME = 200
MAX_VALUE = 100_000  # bytes; Linux takes 128 KiB for one variable, name and all
RESERVED = frozenset({"RUN_NAME", "JOB_ID", "VARIABLES_AS_ARGS"})
_EXECUTORS = frozenset({"PATH", "HOME", "LANG", "IFS"})

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}", re.ASCII)
_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)
_SHELL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_NOT_SHELL = re.compile(r"[^A-Z0-9_]", re.ASCII)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", re.ASCII)
_SECRET_WORDS = frozenset({"token", "secret", "secrets", "password", "passwd", "passphrase", "apikey", "credentials"})
_SECRET_PAIRS = frozenset({("api", "key"), ("access", "key"), ("private", "key"), ("auth", "key"), ("ssh", "key")})


def shell_name(name: str) -> str:
    """The variable as commands see it: upper case, every other character `_` (`batch-size` → `BATCH_SIZE`)."""
    upper = _NOT_SHELL.sub("_", name.upper())
    return f"_{upper}" if upper[:1].isdigit() else upper or "_"


def is_shell_name(name: str) -> bool:
    """Whether a shell can expand `$name`."""
    return len(name) <= MAX_NAME and bool(_SHELL.fullmatch(name))


def spelling(name: str) -> str:
    """Equal for names that only differ in dashes and underscores."""
    return name.replace("-", "_")


def variable_problem(name: str) -> str:
    """Why this can't name a variable; empty where it can."""
    if not _VARIABLE.fullmatch(name):
        return "use a letter, then letters, digits, `-`, `_` or `.`, 100 at most"
    shell = shell_name(name)
    if shell in RESERVED or shell.startswith("DSTACK_"):
        return f"${shell} is set by dstack itself; choose another name"
    if shell in _EXECUTORS:
        return f"it would replace ${shell}, which commands need; choose another name"
    return ""


def environment_problem(name: str) -> str:
    """Why this can't name an environment variable of a workflow; empty where it can."""
    if not is_shell_name(name):
        return f"use a letter, then letters, digits or `_`, {MAX_NAME} at most"
    if name.upper() in RESERVED or name.upper().startswith("DSTACK_"):
        return "it is set by dstack itself; choose another name"
    return ""


def volume_problem(name: str) -> str:
    """Why this can't name a volume; empty where it can."""
    return (
        "" if _VOLUME.fullmatch(name) else "use letters, digits, `-`, `_` and `.`, 63 at most, a letter or digit first"
    )


def looks_secret(name: str) -> bool:
    """Whether the name speaks of a secret: by whole words, so that MAX_TOKENS and TOKENIZERS_PARALLELISM don't."""
    words = [word.lower() for word in _WORDS.findall(name)]
    pairs = itertools.pairwise(words)
    return not _SECRET_WORDS.isdisjoint(words) or not _SECRET_PAIRS.isdisjoint(pairs)


def clashes(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of different names, the earlier first, that a shell would see as one."""
    seen: dict[str, str] = {}
    for name in names:
        first = seen.setdefault(shell_name(name), name)
        if first != name:
            yield first, name


def value_problem(value: str) -> str:
    """Why this can't be the value of a variable; empty where it can."""
    if "\0" in value:
        return "a NUL character can't stand in a value"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "the value is not UTF-8"
    return f"the value has {size} bytes; at most {MAX_VALUE} fit: put it into a file" if size > MAX_VALUE else ""
