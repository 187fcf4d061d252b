"""`run.yaml` ↔ RunSpec and Wanted: readable, stable YAML; on reading, untrusted (DESIGN section 4)."""

import re
from collections.abc import Iterable
from datetime import UTC
from typing import TypeVar

import msgspec

from dstack.model import refs
from dstack.model.codec import convert
from dstack.model.document import Mapping, Node, Scalar, Sequence, parse_document
from dstack.model.errors import Invalid
from dstack.model.problems import START, Misread, Problems, shown
from dstack.model.runspec import Desired, RunSpec, Trigger, Wanted
from dstack.model.yaml_text import yaml_text

PATH = "run.yaml"
RUN_LIMIT = 256 * 1024
VERSION = 1

T = TypeVar("T")

_MAX_DEPTH = 5
_MAX_KEY = 200  # YAML takes 1024 characters for a key that stands before its value
_ORDER = ("version", "repository", "run", "workflow", "root", "desired", "jobs", "generation", "variables", "matrix")
_INTEGERS = frozenset({"version", "planner", "generation", "options.priority", "trigger.pull"})
_BOOLEANS = frozenset({"options.cache", "clean", "trigger.fork"})
_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", re.ASCII)
_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)
_JOB = re.compile(r"[0-9a-f]{12}", re.ASCII)
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


def to_text(spec: RunSpec, wanted: Wanted) -> str:
    """The text of `run.yaml`; equal values give equal text. Raises Invalid where `from_text` would refuse it."""
    spec = msgspec.structs.replace(spec, submitted_at=spec.submitted_at.astimezone(UTC))
    always = {
        "version": spec.version,
        "planner": spec.planner,
        "generation": wanted.generation,
        "desired": wanted.desired,
    }
    tree: dict[str, object] = {**_builtins(spec), **_builtins(wanted), **_builtins(always)}
    order = dict.fromkeys([*_ORDER, *RunSpec.__struct_fields__, *Wanted.__struct_fields__])
    text = yaml_text({name: tree[name] for name in order if name in tree})
    try:
        from_text(text.encode())
    except UnicodeEncodeError as error:
        msg = f"the run can't be written down: a value in it is not UTF-8 ({error.object[error.start]!a})"
        raise Invalid(msg) from error
    return text


def from_text(data: bytes) -> tuple[RunSpec, Wanted]:
    """Parse `run.yaml`. Raises Invalid. Keys unknown to this version are ignored, as in every value we write."""
    problems = Problems(PATH)
    root = parse_document(data, problems, limit=RUN_LIMIT)
    if not isinstance(root, Mapping):
        problems.fatal(START, "this is no run: it must be a mapping")
    problems.check()
    try:
        tree = _tree(root, "", 0)
    except Misread as error:
        problems.fatal(error.mark, str(error))
    _check_version(tree)
    spec, wanted = _converted(tree, RunSpec), _converted(tree, Wanted)
    _check_spec(spec)
    _check_wanted(wanted)
    return spec, wanted


def _builtins(value: object) -> dict[str, object]:
    built = msgspec.to_builtins(value)
    return built if isinstance(built, dict) else {}


def _tree(node: Node, place: str, depth: int) -> object:
    """Plain dicts, lists and texts; numbers and truths where the values have them; nulls are left out of mappings."""
    if depth > _MAX_DEPTH:
        raise Misread(node.mark, "this is nested too deep for a run")
    if isinstance(node, Sequence):
        return [_tree(item, place, depth + 1) for item in node.items]
    if isinstance(node, Scalar):
        return _leaf(node, place)
    tree: dict[str, object] = {}
    for key, value in node.entries:
        if len(key.text) > _MAX_KEY:
            raise Misread(key.mark, f"the key {shown(key.text)} is too long")
        if not (isinstance(value, Scalar) and value.null):
            tree[key.text] = _tree(value, f"{place}.{key.text}" if place else key.text, depth + 1)
    return tree


def _leaf(node: Scalar, place: str) -> object:
    found: object = node.integer if place in _INTEGERS else node.boolean if place in _BOOLEANS else None
    return node.text if found is None else found


def _check_version(tree: object) -> None:
    version = tree.get("version", VERSION) if isinstance(tree, dict) else None
    if version != VERSION:
        msg = f"{PATH}: version {shown(str(version))} is not known to this dstack (it knows {VERSION}): update dstack"
        raise Invalid(msg)


def _converted(tree: object, type_: type[T]) -> T:
    try:
        return convert(tree, type_)
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        msg = f"{PATH}: {error}"
        raise Invalid(msg) from error


def _check_spec(spec: RunSpec) -> None:
    refs.check_name(spec.run, "run")
    refs.check_name(spec.workflow, "workflow")
    if spec.options.only is not None:
        refs.check_name(spec.options.only, "runner")
    _check_form("repository", spec.repository, _REPOSITORY)
    _check_form("code.commit", spec.code.commit, _OID)
    _check_form("code.snapshot", spec.code.snapshot, _OID)
    if spec.trigger is not None:
        _check_trigger(spec.trigger)
    _check_least("planner", spec.planner)
    if abs(spec.options.priority) > 1_000_000:  # noqa: PLR2004 - far beyond use, far from overflow
        msg = f"{PATH}: options.priority must lie between -1000000 and 1000000"
        raise Invalid(msg)
    _check_keys(spec.environment, spec.matrix, spec.variables, *spec.variables.values(), *spec.sweeps.values())


def _check_trigger(trigger: Trigger) -> None:
    _check_form("trigger.key", trigger.key, _KEY)
    _check_form("trigger.commit", trigger.commit, _OID)
    if trigger.before is not None:
        _check_form("trigger.before", trigger.before, _OID)


def _check_wanted(wanted: Wanted) -> None:
    if wanted.root is not None:
        _check_form("root", wanted.root, _OID)
    _check_least("generation", wanted.generation)
    for job, desired in wanted.jobs.items():
        _check_form("jobs", job, _JOB)
        if desired is Desired.RUN:
            msg = f"{PATH}: jobs.{job} can be stop or abort, not run"
            raise Invalid(msg)


def _check_form(place: str, text: str, form: re.Pattern[str]) -> None:
    if not form.fullmatch(text):
        msg = f"{PATH}: {place} is {shown(text)}, which can't be one"
        raise Invalid(msg)


def _check_least(place: str, number: int) -> None:
    if number < 1:
        msg = f"{PATH}: {place} is {number}; it counts from 1"
        raise Invalid(msg)


def _check_keys(*tables: Iterable[str]) -> None:
    if any(not key.strip() for table in tables for key in table):
        msg = f"{PATH}: a name of variables, matrix or environment is empty"
        raise Invalid(msg)
