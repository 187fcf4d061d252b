"""What each command prints with `--json`, as types: in one place, for the tests and for docs/json.md."""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from cli.artifacts import ArtifactLine
from cli.checks import Check
from cli.config import SettingLine
from cli.diff import DiffDocument
from cli.lines import JobLine, RunLine
from cli.log_text import JsonLine
from cli.metric_table import MetricsLine
from cli.prune import PrunedDocument
from cli.resume import ResumedLine
from cli.runners import RunnerLine
from cli.submitted import DetachedDocument
from cli.tags import TagLine

_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "object",
    "null": "null",
}
Schema = Mapping[str, Any]


class PlanDocument(msgspec.Struct, frozen=True, kw_only=True):
    """`run --dry-run --json`. Of a job what differs from the defaults, `reused_from`, and `differs`."""

    workflow: str
    jobs: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The type of the document, or, where `lines`, of each line of it."""

    type: Any
    lines: bool = False


SHAPES: Mapping[str, Shape] = {
    "run --detach": Shape(type=DetachedDocument),
    "run --dry-run": Shape(type=PlanDocument),
    "status": Shape(type=list[RunLine]),
    "logs": Shape(type=JsonLine, lines=True),
    "artifacts": Shape(type=list[ArtifactLine]),
    "metrics": Shape(type=list[MetricsLine]),
    "diff": Shape(type=DiffDocument),
    "resume": Shape(type=ResumedLine),
    "tags": Shape(type=list[TagLine]),
    "prune": Shape(type=PrunedDocument),
    "runners": Shape(type=list[RunnerLine]),
    "config list": Shape(type=list[SettingLine]),
    "doctor": Shape(type=list[Check]),
}


def names(shape: Shape) -> dict[str, str]:
    """Every name that can stand in the document, with the kind of its value: `[].jobs[].status` → `text`."""
    found = msgspec.json.schema(shape.type)
    return dict(_names(found, found.get("$defs", {}), ""))


def _names(schema: Schema, known: Schema, path: str) -> Iterator[tuple[str, str]]:
    for one in _parts(schema, known):
        if "properties" in one:
            for name, inner in one["properties"].items():
                place = f"{path}.{name}" if path else name
                yield place, _time(name, kind(inner, known))
                yield from _names(inner, known, place)
        elif one.get("type") == "array" and isinstance(one.get("items"), dict):
            yield from _names(one["items"], known, f"{path}[]")


def _parts(schema: Schema, known: Schema) -> Iterator[Schema]:
    """The schema, or each that it may be."""
    if "anyOf" in schema:
        for one in schema["anyOf"]:
            yield from _parts(one, known)
    elif "$ref" in schema:
        yield known[schema["$ref"].rpartition("/")[2]]
    else:
        yield schema


def kind(schema: Schema, known: Schema) -> str:
    """A value's kind in words."""
    return " or ".join(dict.fromkeys(_kind(one, known) for one in _parts(schema, known)))


def _kind(one: Schema, known: Schema) -> str:
    if "enum" in one:
        return "word"
    if one.get("type") == "array":
        return f"list of {kind(one['items'], known)}s" if one.get("items") else "list"
    return _WORDS[one["type"]]


def page() -> str:
    """The tables of docs/json.md. What stands in several of them, jobs, has one of its own."""
    job = _table(names(Shape(type=JobLine)))
    parts = [f"## A job\n\n{_told(JobLine)}\n\n{job}"]
    for command, shape in SHAPES.items():
        found = names(shape)
        first = next(iter(found)).startswith("[]")
        of = "A line each:" if shape.lines else "A list of objects:" if first else "An object:"
        told = _told(getattr(shape.type, "__args__", (shape.type,))[0])
        parts.append("\n\n".join(text for text in (f"## `dstack {command} --json`", told, of, _table(found)) if text))
    return "\n\n".join(parts) + "\n"


def _table(found: Mapping[str, str]) -> str:
    shown = {name.removeprefix("[]."): value for name, value in found.items()}
    jobs = "jobs[].exit_code" in shown
    rows = [
        f"| `{name}` | {'list of [jobs](#a-job)' if jobs and name == 'jobs' else value} |"
        for name, value in shown.items()
        if not (jobs and name.startswith("jobs[]."))
    ]
    return "\n".join(["| name | value |", "|---|---|", *rows])


def _told(of: object) -> str:
    """What its docstring says, for readers of JSON."""
    text = re.sub(r"^`[^`]* --json`[.,:;]?\s*", "", inspect.getdoc(of) or "").replace("None", "null")
    return text[:1].upper() + text[1:]


def _time(name: str, value: str) -> str:
    return value.replace("text", "time") if name == "at" or name.endswith("_at") else value
