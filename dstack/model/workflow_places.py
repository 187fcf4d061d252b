"""The paths of a workflow: `working-dir`, `artifacts`, `metrics`, `volumes`, `cache-dirs`, and that none collide."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from dstack.model import fields, language
from dstack.model.document import Mapping, Node
from dstack.model.errors import Invalid
from dstack.model.folder_paths import CONTAINER_TREE, collisions, inner_path, is_within, joined
from dstack.model.job import Volume
from dstack.model.mapping_keys import Keys
from dstack.model.names import volume_problem
from dstack.model.problems import Misread, Problems, shown
from dstack.model.units import parse_duration
from dstack.model.workflow import Workflow

MAX_ARTIFACTS = 200
MAX_PLACES = 50
LEAST_SAVE = 1.0

_GLOB = re.compile(r"[*?]|\$\{?[A-Za-z_]")
_KEPT = ("/dev", "/dstack", "/proc", "/sys")
_MODES = {"": False, "ro": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifacts:
    """Paths, and for some of them the seconds between two saves."""

    paths: tuple[str, ...] = ()
    saves: dict[str, float] = field(default_factory=dict)


def artifacts(node: Node, problems: Problems, *, absolute: bool) -> Artifacts:
    """The artifacts, each once. `absolute`: whether a path may start at the root of a container."""
    paths: dict[str, float | None] = {}
    for found, save in fields.each(
        node, "`artifacts`", problems, partial(_artifact, problems=problems, absolute=absolute)
    ):
        if save is not None and paths.get(found, save) not in {None, save}:
            raise Misread(node.mark, f"{shown(found)} is saved at two intervals: write it once")
        paths[found] = paths.get(found) or save
    _check_number(node, len(paths), "artifacts", MAX_ARTIFACTS)
    return Artifacts(paths=tuple(paths), saves={name: save for name, save in paths.items() if save is not None})


def metrics(node: Node, problems: Problems, *, absolute: bool, among: Artifacts) -> tuple[str, ...]:
    """JSON files, each of which is an artifact or lies in one."""
    read = partial(_metric, absolute=absolute, among=among)
    found = tuple(dict.fromkeys(fields.each(node, "`metrics`", problems, read)))
    _check_number(node, len(found), "metrics", MAX_PLACES)
    return found


def volumes(node: Node, problems: Problems, *, absolute: bool) -> tuple[Volume, ...]:
    """`NAME:PATH`, or `NAME:PATH:ro`."""
    found = tuple(fields.each(node, "`volumes`", problems, partial(_volume, absolute=absolute)))
    if len({(volume.name, volume.path) for volume in found}) < len(found):
        problems.add(node.mark, "a volume stands here for the second time at the same path")
    names: dict[str, str] = {}
    for volume in found:
        first = names.setdefault(volume.name.lower(), volume.name)
        if first != volume.name:
            both = f"{shown(first)} and {shown(volume.name)}"
            problems.add(node.mark, f"the volumes {both} differ in upper and lower case only")
    _check_number(node, len(found), "volumes", MAX_PLACES)
    return found


def cache_dirs(node: Node, problems: Problems, *, absolute: bool) -> tuple[str, ...]:
    """Paths of folders."""
    read = partial(_place, what="a folder of `cache-dirs`", absolute=absolute)
    found = tuple(dict.fromkeys(fields.each(node, "`cache-dirs`", problems, read)))
    _check_number(node, len(found), "cache-dirs", MAX_PLACES)
    return found


def working_dir(node: Node) -> str:
    """A path in the repository."""
    return _path(node, fields.text(node, "`working-dir`"), absolute=False)


def saved(workflow: Workflow, owner: str) -> list[tuple[str, str]]:
    """Where the artifacts lie, from the top of the repository, with `owner`; fit for `clashing`."""
    return [(_from_top(workflow, path), owner) for path in workflow.artifacts]


def mounted(workflow: Workflow) -> list[tuple[str, str]]:
    """Likewise volumes and cache-dirs, each its own owner."""
    return [
        *((_from_top(workflow, volume.path), f"the volume {volume.name}") for volume in workflow.volumes),
        *((_from_top(workflow, path), f"{shown(path)} of `cache-dirs`") for path in workflow.cache_dirs),
    ]


def clashing(owned: list[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Two different owners whose places lie in one another, and where; for a message."""
    for (outer, first), (path, second) in collisions(owned):
        yield first, second, shown(path) if outer == path else f"{shown(path)}, inside {shown(outer)}"


def _from_top(workflow: Workflow, path: str) -> str:
    whole = joined(workflow.working_dir, path)
    if workflow.image is not None and is_within(whole, CONTAINER_TREE):
        return whole.removeprefix(CONTAINER_TREE).lstrip("/") or "."
    return whole


def _check_number(node: Node, count: int, what: str, most: int) -> None:
    if count > most:
        raise Misread(node.mark, f"{count} {what} are too many: name at most {most}, folders for instance")


def _artifact(node: Node, problems: Problems, *, absolute: bool) -> tuple[str, float | None]:
    if not isinstance(node, Mapping):
        return _artifact_path(node, absolute=absolute), None
    keys = Keys(node, problems)
    keys.refuse("an artifact", language.ARTIFACT)
    save = keys.read("save", _save, None)
    if "path" not in keys:
        raise Misread(node.mark, "this artifact has no `path`")
    return keys.get("path", partial(_artifact_path, absolute=absolute)), save


def _save(node: Node) -> float:
    seconds = fields.measured(node, "`save`", parse_duration)
    if seconds < LEAST_SAVE:
        raise Misread(node.mark, "`save` must be at least 1s; 10m is a good start")
    return seconds


def _artifact_path(node: Node, *, absolute: bool) -> str:
    path = _plain(node, "an artifact", absolute=absolute)
    if path == "/":
        raise Misread(node.mark, "the whole file system can't be an artifact")
    return path


def _metric(node: Node, *, absolute: bool, among: Artifacts) -> str:
    path = _plain(node, "a file of `metrics`", absolute=absolute)
    if not any(is_within(path, artifact) for artifact in among.paths):
        raise Misread(node.mark, f"{shown(path)} is not among the artifacts: name it, or its folder, in `artifacts`")
    return path


def _volume(node: Node, *, absolute: bool) -> Volume:
    text = fields.text(node, "a volume")
    name, colon, rest = text.partition(":")
    path, _, mode = rest.partition(":")
    if not colon or not path or mode not in _MODES or rest.endswith(":"):
        raise Misread(node.mark, f"{shown(text)} can't be a volume: write NAME:PATH, or NAME:PATH:ro to read alone")
    if problem := volume_problem(name):
        raise Misread(node.mark, f"{shown(name)} can't be the name of a volume: {problem}")
    where = _checked_place(node, path, f"the volume {shown(name)}", absolute=absolute)
    return Volume(name=name, path=where, read_only=_MODES[mode])


def _place(node: Node, what: str, *, absolute: bool) -> str:
    return _checked_place(node, fields.text(node, what), what, absolute=absolute)


def _checked_place(node: Node, text: str, what: str, *, absolute: bool) -> str:
    path = _checked_plain(node, text, absolute=absolute)
    if path in {".", "/", CONTAINER_TREE} or any(is_within(path, kept) for kept in _KEPT):
        raise Misread(node.mark, f"{what} can't take the place of {shown(path)}: name a folder of its own")
    return path


def _plain(node: Node, what: str, *, absolute: bool) -> str:
    return _checked_plain(node, fields.text(node, what), absolute=absolute)


def _checked_plain(node: Node, text: str, *, absolute: bool) -> str:
    if _GLOB.search(text):
        raise Misread(node.mark, f"{shown(text)}: patterns and variables aren't replaced in paths; name a folder")
    return _path(node, text, absolute=absolute)


def _path(node: Node, text: str, *, absolute: bool) -> str:
    try:
        return inner_path(text, absolute=absolute)
    except Invalid as error:
        raise Misread(node.mark, str(error)) from error
