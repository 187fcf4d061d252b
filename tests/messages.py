"""Finds every sentence that the program can say, in its source: what a reader of the golden file is to read."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("cli", "controller", "runner", "webhooks", "dstack")
# No sentence but a regular expression, or options of another program.
_PATTERN = re.compile(r"\(\?|\[\^|\\[sdwb.]|^%\(|^-|^[^A-Za-z]*$")
# Fewer words are names, keys and commands of other programs.
WORDS = 3


def sentences(root: Path) -> dict[str, list[str]]:
    """By file, in the order of the source: texts of so many words that are no docstrings; values as `{name}`."""
    found: dict[str, list[str]] = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            texts = list(dict.fromkeys(_texts(ast.parse(path.read_text(encoding="utf-8")))))
            if texts:
                found[str(path.relative_to(root))] = texts
    return found


def catalogue(root: Path) -> str:
    """The golden file."""
    parts = [f"== {path}\n" + "".join(f"{text}\n" for text in texts) for path, texts in sentences(root).items()]
    return "\n".join(parts)


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in _nodes(tree):
        text = _text(node)
        if text is not None and len(text.split()) >= WORDS and not _PATTERN.search(text):
            yield "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All but docstrings and what stands within an f-string; in the order of the source."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue
        yield child
        if not isinstance(child, ast.JoinedStr):
            yield from _nodes(child)


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_part(part) for part in node.values)
    return None


def _part(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    return f"{{{ast.unparse(part.value)}}}" if isinstance(part, ast.FormattedValue) else "{}"
