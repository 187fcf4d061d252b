"""Nodes of a document → typed values. Each function returns the value or raises Misread at its place."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from dstack.model.document import Mapping, Node, Scalar, Sequence
from dstack.model.errors import Invalid
from dstack.model.problems import Misread, Problems, shown

T = TypeVar("T")


def mapping(node: Node, what: str) -> Mapping:
    """A mapping."""
    if isinstance(node, Mapping):
        return node
    raise Misread(node.mark, f"{what} must be a mapping (`key: value` lines), not {kind(node)}")


def sequence(node: Node, what: str) -> Sequence:
    """A list."""
    if isinstance(node, Sequence):
        return node
    raise Misread(node.mark, f"{what} must be a list (`- …` lines, or [a, b]), not {kind(node)}")


def scalar(node: Node, what: str) -> Scalar:
    """A scalar that isn't null."""
    if isinstance(node, Scalar) and not node.null:
        return node
    hint = ": quote it, if it is meant as text" if isinstance(node, Mapping) else ""
    raise Misread(node.mark, f"{what} must be a text, not {kind(node)}{hint}")


def text(node: Node, what: str) -> str:
    """A text exactly as written; not empty."""
    found = scalar(node, what)
    if not found.text.strip():
        raise Misread(node.mark, f"{what} must not be empty")
    return found.text


def boolean(node: Node, what: str) -> bool:
    """`true` or `false`."""
    value = scalar(node, what).boolean
    if value is None:
        raise Misread(node.mark, f"{what} must be true or false, not {shown(scalar(node, what).text)}")
    return value


def integer(node: Node, what: str, *, least: int, most: int) -> int:
    """A whole number between `least` and `most`."""
    value = scalar(node, what).integer
    if value is None or not least <= value <= most:
        got = shown(scalar(node, what).text)
        raise Misread(node.mark, f"{what} must be a whole number from {least} to {most}, not {got}")
    return value


def number(node: Node, what: str, *, most: float) -> float:
    """A number above 0 and up to `most`."""
    value = scalar(node, what).number
    if value is None or not 0 < value <= most:
        got = shown(scalar(node, what).text)
        raise Misread(node.mark, f"{what} must be a number above 0 and up to {most:g}, not {got}")
    return value


def measured(node: Node, what: str, parse: Callable[[str], T]) -> T:
    """A duration or size, by the `parse` of `dstack.model.units`."""
    try:
        return parse(scalar(node, what).text)
    except Invalid as error:
        raise Misread(node.mark, f"{what}: {error}") from error


def each(node: Node, what: str, problems: Problems, read: Callable[[Node], T]) -> Iterator[T]:
    """What `read` makes of each item of a list; items that are wrong are noted and left out."""
    for item in sequence(node, what).items:
        with problems.noting():
            yield read(item)


def kind(node: Node) -> str:
    """A word for what is there instead."""
    if isinstance(node, Scalar):
        return "null" if node.null else f"the value {shown(node.text)}"
    return "a list" if isinstance(node, Sequence) else "a mapping"
