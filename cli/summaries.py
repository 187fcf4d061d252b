"""All runs as lines, from a file that remembers each by the ids of its refs; it may be lost or broken any time."""

import math
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from cli.lines import RunLine
from cli.session import Seen, Session
from dstack import __version__
from dstack.model import refs
from dstack.model.codec import decoder

FILE = "summaries.json"
LIMIT = 256 * 1024 * 1024

_Kept = dict[str, RunLine]


class _File(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    repository: str | None
    lines: _Kept
    tags: tuple[str, ...] = ()


def load_runs(session: Session, seen: Seen) -> tuple[RunLine, ...]:
    """Every run there is, the latest submitted first."""
    path = session.place / FILE
    file = _read(path, seen.repository)
    kept, tags = file.lines, _tags(seen.found)
    names = tuple(sorted(name for some in tags.values() for name in some))
    keys = _keys(seen.found)
    new = _lines(session, seen, [name for name, key in keys.items() if key not in kept])
    lines = {key: new[name] if name in new else kept[key] for name, key in keys.items()}
    sound = {key: line for key, line in lines.items() if not line.problem}
    if sound.keys() != kept.keys() or names != file.tags:
        _write(path, _File(version=__version__, repository=seen.repository, lines=sound, tags=names))
    tagged = (_tagged(line, tags) for line in lines.values())
    return latest_first(tagged)


def latest_first(lines: Iterable[RunLine]) -> tuple[RunLine, ...]:
    """The latest submitted first."""
    return tuple(sorted(lines, key=_age, reverse=True))


def _lines(session: Session, seen: Seen, names: Sequence[str]) -> dict[str, RunLine]:
    """Read from git what is not known."""
    if not names:
        return {}
    from cli.reading import Reader  # noqa: PLC0415 (100 ms of imports that a warm file saves)

    reader = Reader(session)
    return {name: reader.line(seen, name) for name in names}


def _keys(found: Mapping[str, str]) -> dict[str, str]:
    """By run, what its line depends on: the tip of its branch and of every notes ref under its name."""
    ids: dict[str, list[str]] = {}
    for ref, oid in sorted(found.items()):
        name = refs.parse_run_branch(ref)
        if name:
            ids.setdefault(name, []).append(oid)
    for ref, oid in sorted(found.items()):
        parsed = refs.parse_note(ref)
        if parsed and parsed[0].name in ids:
            ids[parsed[0].name].append(f"{parsed[1]}:{oid}")
    return {name: " ".join((name, *parts)) for name, parts in ids.items()}


def _tags(found: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    prefix = refs.tag("")
    tags: dict[str, tuple[str, ...]] = {}
    for ref, oid in sorted(found.items()):
        if ref.startswith(prefix):
            tags[oid] = (*tags.get(oid, ()), ref.removeprefix(prefix))
    return tags


def _tagged(line: RunLine, tags: Mapping[str, tuple[str, ...]]) -> RunLine:
    return msgspec.structs.replace(line, tags=tags[line.root]) if line.root in tags else line


def _age(line: RunLine) -> tuple[float, float, str]:
    """Of two that were submitted in the same second, the one that goes on, or went on longer, is the later."""
    submitted = line.submitted_at.timestamp() if line.submitted_at else 0.0
    return submitted, line.finished_at.timestamp() if line.finished_at else math.inf, line.run


def _read(path: Path, repository: str | None) -> _File:
    none = _File(version=__version__, repository=repository, lines={})
    try:
        data = path.read_bytes()
        kept = decoder(_File).decode(data) if len(data) < LIMIT else None
    except (OSError, msgspec.MsgspecError, RecursionError, ValueError):
        return none  # there is none, or none that can be used: it is made anew
    good = kept is not None and kept.version == __version__ and kept.repository == repository
    return kept if kept and good else none


def _write(path: Path, file: _File) -> None:
    scratch = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    # It only saves time: where it can't be written, nothing is lost.
    with suppress(OSError):
        scratch.write_bytes(msgspec.json.encode(file))
        scratch.replace(path)
    with suppress(OSError):
        scratch.unlink()
