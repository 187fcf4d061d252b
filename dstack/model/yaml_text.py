"""Mappings, lists, texts, numbers, truths → YAML that people read, that git diffs well, and that reads back exactly."""

import re
from collections.abc import Iterator

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*", re.ASCII)
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def yaml_text(tree: dict[str, object]) -> str:
    """The text of a document, keys in the order given. Holds dict, list, tuple, str, bool and int; no None."""
    return "".join(_mapping(tree, ""))


def quoted(text: str) -> str:
    """A text as a scalar: as it is where no reader of YAML, old or new, could take it for something else."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    # A lone surrogate has no escape in YAML: left as it is, it fails where the text is encoded, with a clear message.
    if character.isprintable() or "\ud800" <= character <= "\udfff":
        return character
    return f"\\U{ord(character):08x}"


def _mapping(tree: dict[str, object], indent: str) -> Iterator[str]:
    for key, value in tree.items():
        yield f"{indent}{quoted(key)}:"
        yield from _value(value, indent)


def _value(value: object, indent: str) -> Iterator[str]:
    if isinstance(value, dict) and value:
        yield "\n"
        yield from _mapping(value, f"{indent}  ")
    elif isinstance(value, list | tuple) and value:
        yield "\n"
        for item in value:
            yield from _item(item, f"{indent}  ")
    else:
        yield f" {_scalar(value)}\n"


def _item(value: object, indent: str) -> Iterator[str]:
    if isinstance(value, dict) and value:
        yield f"{indent}-\n"
        yield from _mapping(value, f"{indent}  ")
    else:
        yield f"{indent}- {_scalar(value)}\n"


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list | tuple):
        return "{}" if isinstance(value, dict) else "[]"
    return quoted(value) if isinstance(value, str) else str(value)
