"""YAML text → a tree of nodes that know their line and column. Scalars keep their text; what it means is the reader's.

On libyaml's parser. YAML 1.2's core rules for plain scalars: `on` is a word, `010` is ten.
"""

import re
from collections.abc import Iterator

import msgspec
import yaml

from dstack.model.problems import START, Mark, Misread, Problems, shown

MAX_DOCUMENT = 1024 * 1024
MAX_DEPTH = 50
MAX_EXPANDED = 100_000

_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)


# No node is part of a cycle, so the collector of cycles need not look at them: it took half of the time.
class Scalar(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A scalar: its text as written. `plain` where it isn't quoted, so that it can be a number, a truth or null."""

    mark: Mark
    text: str
    plain: bool

    @property
    def null(self) -> bool:
        """Whether it is null."""
        return self.plain and self.text in _NULL

    @property
    def boolean(self) -> bool | None:
        """The truth it is; None where it is something else."""
        if not self.plain or self.text not in _TRUE | _FALSE:
            return None
        return self.text in _TRUE

    @property
    def integer(self) -> int | None:
        """The decimal whole number it is; None where it is something else."""
        return int(self.text) if self.plain and _INTEGER.fullmatch(self.text) else None

    @property
    def number(self) -> float | None:
        """The decimal number it is (perhaps infinite); None where it is something else."""
        return float(self.text) if self.plain and _FLOAT.fullmatch(self.text) else None


class Sequence(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A list."""

    mark: Mark
    items: tuple["Node", ...]


class Mapping(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A mapping in the order of the file; no key is there twice."""

    mark: Mark
    entries: tuple[tuple[Scalar, "Node"], ...]


Node = Scalar | Sequence | Mapping


def parse_document(data: bytes, problems: Problems, *, limit: int = MAX_DOCUMENT) -> Node | None:
    """The tree of the one document in `data`; None where there is none. `limit` in bytes.

    What can be read past (a duplicate key, a tag) is noted in `problems`; raises Invalid where nothing can be read.
    """
    if len(data) > limit:
        problems.fatal(START, f"the file is {len(data)} bytes long; at most {limit} are accepted")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        problems.fatal(
            _mark_of(data, error.start), f"byte {data[error.start]:#04x} is not UTF-8: save the file as UTF-8"
        )
    try:
        return _Composer(data, problems).document()
    except yaml.reader.ReaderError as error:
        mark = _mark_of(data, error.position)
        problems.fatal(
            mark,
            f"the control character {data[error.position]:#04x} can't stand here: write it escaped, in double quotes",
        )
    except yaml.MarkedYAMLError as error:
        problems.fatal(_mark(error.problem_mark), _explained(error))
    except Misread as error:
        problems.fatal(error.mark, str(error))


class _Composer:
    """Events of libyaml → nodes. Aliases share their node; what they'd expand to is counted and bounded."""

    def __init__(self, data: bytes, problems: Problems) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(data, Loader=yaml.CSafeLoader)
        self._problems = problems
        self._anchors: dict[str, tuple[Node, int] | None] = {}
        self._nodes = 0
        self._expanded = 0

    def document(self) -> Node | None:
        root: Node | None = None
        for event in self._events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            if root is not None:
                raise Misread(_mark(event.start_mark), "a second document begins here; put everything into one")
            root = self._node(next(self._events), 0)
        return root

    def _node(self, event: yaml.Event, depth: int) -> Node:
        mark = _mark(event.start_mark)
        if depth > MAX_DEPTH:
            raise Misread(mark, f"this is nested more than {MAX_DEPTH} deep")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event.anchor or "", mark)
        self._nodes += 1
        if not isinstance(event, yaml.ScalarEvent | yaml.SequenceStartEvent | yaml.MappingStartEvent):
            raise Misread(mark, "a value is missing here")
        if event.tag is not None:
            self._problems.add(mark, f"the tag {shown(event.tag)} is not supported: leave it out (quotes make a text)")
        return self._anchored(event, mark, depth) if event.anchor else self._content(event, mark, depth)

    def _anchored(self, event: yaml.NodeEvent, mark: Mark, depth: int) -> Node:
        name = event.anchor or ""
        before = self._nodes + self._expanded
        self._anchors[name] = None
        node = self._content(event, mark, depth)
        self._anchors[name] = (node, self._nodes + self._expanded - before + 1)
        return node

    def _alias(self, name: str, mark: Mark) -> Node:
        if name not in self._anchors:
            raise Misread(mark, f"the alias {shown('*' + name)} has no anchor {shown('&' + name)} before it")
        anchored = self._anchors[name]
        if anchored is None:
            raise Misread(mark, f"the alias {shown('*' + name)} stands inside its own anchor")
        node, size = anchored
        self._expanded += size
        if self._expanded > MAX_EXPANDED:
            raise Misread(mark, f"the aliases up to here stand for more than {MAX_EXPANDED} values")
        return node

    def _content(self, event: yaml.Event, mark: Mark, depth: int) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, mark)
        if isinstance(event, yaml.SequenceStartEvent):
            return Sequence(mark=mark, items=tuple(self._items(depth)))
        return Mapping(mark=mark, entries=self._entries(depth))

    def _scalar(self, event: yaml.ScalarEvent, mark: Mark) -> Scalar:
        if "\0" in event.value:
            self._problems.add(mark, "a NUL character can't stand in a value")
        return Scalar(mark=mark, text=event.value, plain=event.implicit[0])

    def _items(self, depth: int) -> Iterator[Node]:
        for event in self._events:
            if isinstance(event, yaml.SequenceEndEvent):
                return
            yield self._node(event, depth + 1)

    def _entries(self, depth: int) -> tuple[tuple[Scalar, Node], ...]:
        entries: dict[str, tuple[Scalar, Node]] = {}
        merged: list[tuple[Scalar, Node]] = []
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key, value = self._node(event, depth + 1), self._node(next(self._events), depth + 1)
            with self._problems.noting():
                if isinstance(key, Scalar) and key.plain and key.text == "<<":
                    merged.extend(_merged(value, key.mark))
                else:
                    _enter(entries, key, value)
        for entry in merged:
            entries.setdefault(entry[0].text, entry)
        return tuple(entries.values())


def _enter(entries: dict[str, tuple[Scalar, Node]], key: Node, value: Node) -> None:
    if not isinstance(key, Scalar):
        raise Misread(key.mark, "a key must be a word, not a list or a mapping")
    if key.text in entries:
        first = entries[key.text][0].mark
        raise Misread(
            key.mark, f"the key {shown(key.text)} stands here for the second time (first in line {first.line})"
        )
    entries[key.text] = (key, value)


def _merged(value: Node, mark: Mark) -> Iterator[tuple[Scalar, Node]]:
    """What a merge key brings in: of several mappings, the first that has a key wins."""
    for mapping in value.items if isinstance(value, Sequence) else (value,):
        if not isinstance(mapping, Mapping):
            raise Misread(mark, "'<<' takes a mapping or a list of mappings")
        yield from mapping.entries


def _mark(mark: yaml.Mark | yaml._yaml.Mark | None) -> Mark:
    return Mark(mark.line + 1, mark.column + 1) if mark else START


def _mark_of(data: bytes, position: int) -> Mark:
    before = data[:position].decode(errors="replace")
    return Mark(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


def _explained(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "this can't be read"
    if "tab" in problem or "cannot start any token" in problem:
        return f"{problem}: indent with blanks, and quote a text that begins with a special character"
    if "':'" in problem or "expected key" in problem or "mapping values" in problem:
        return f"{problem}: look at the indentation, the colons and the quotes here and in the line before"
    return problem if error.context is None else f"{error.context}: {problem}"
