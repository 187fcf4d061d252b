"""`refs/dstack/seen`: what triggers remember of the code remote, as the files of a git tree (DESIGN sections 3, 11).

`heads/<branch>`, `tags/<tag>`, `pulls/<n>`: the last commit that was evaluated; `schedule/<workflow>.<digest>`: the
last slot. `troubles/<path of one of these>`: what kept its last event from starting what it should. `made/<path>`: the
runs of its last event, until somebody has seen them: a server that dies within a push may move this ref alone.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar

from dstack.model.codec import Value, decode, encode
from dstack.model.errors import Invalid
from dstack.model.problems import shown
from dstack.model.triggers import Schedule

V = TypeVar("V")

MAX_SEEN = 300_000
MAX_PATH = 1000  # bytes
MOST_REFUSALS = 3

HEADS = "heads/"
TAGS = "tags/"
SCHEDULES = "schedule/"

# Stands for all pull requests: they have been looked at since then.
PULLS_BEGAN = "pulls/0"

_PULLS = "pulls/"
_TROUBLES = "troubles/"
_MADE = "made/"
_KINDS = {"refs/heads/": HEADS, "refs/tags/": TAGS}
_MAX_TROUBLE = 16 * 1024
_MAX_MADE = 256 * 1024
_MAX_REASON = 1000
_MAX_NAMED = 100
_MOST_FAULTS = 20
_REMEMBERED = re.compile(r"heads/.|tags/.|pulls/(?:0|[1-9][0-9]{0,11})$", re.ASCII | re.DOTALL)
_EARLIEST = "2000"  # before git; far older times overflow in some zones
_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", re.ASCII)
_SCHEDULE = re.compile(r"schedule/([a-z0-9-]{1,63})\.[0-9a-f]{12}", re.ASCII)
_PULL = re.compile(
    r"refs/(?:(?:pull|merge-requests)/([1-9][0-9]{0,11})/head|pull-requests/([1-9][0-9]{0,11})/from)", re.ASCII
)


class Trouble(Value, frozen=True, kw_only=True):
    """Why an event started nothing, or not all. `mark`: its commit or slot. `refusals`: how often the remote refused.

    With fewer than MOST_REFUSALS it is tried again: the mark of the path has not moved.
    """

    mark: str
    reason: str
    refusals: int = 0
    workflows: tuple[str, ...] = ()

    @classmethod
    def of(cls, mark: str, reason: str, *, refusals: int = 0, workflows: Iterable[str] = ()) -> "Trouble":
        """One that can be written: a reason (the remote's words, a file's problems) is made one bounded line."""
        named = tuple(sorted(set(workflows)))[:_MAX_NAMED]
        return cls(mark=mark, reason=one_line(reason, _MAX_REASON), refusals=refusals, workflows=named)


class Made(Value, frozen=True, kw_only=True):
    """What one push was to make: the runs of these keys, beside the move of the marks.

    `before`: the marks that moved, as they were (None: there was none). `against`: what the keys were made with.
    """

    keys: tuple[str, ...]
    before: dict[str, str | None]
    against: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is remembered. `oid` is the commit it stands in; None: not written yet.

    `unreadable`: paths of the tree whose text made no sense. What is there now is recorded for them, and nothing fires.
    `lost`: events that are to be evaluated again, see `rolled_back`.
    """

    oid: str | None = None
    marks: Mapping[str, str] = field(default_factory=dict)
    troubles: Mapping[str, Trouble] = field(default_factory=dict)
    made: Mapping[str, Made] = field(default_factory=dict)
    unreadable: frozenset[str] = frozenset()
    faults: tuple[str, ...] = ()
    lost: frozenset[str] = frozenset()

    def against(self, path: str) -> str | None:
        """The commit that the keys of an event at this path are made with."""
        return self.made[path].against if path in self.lost else self.oid

    def missing(self, keys: AbstractSet[str]) -> frozenset[str]:
        """The paths whose last event has made runs that are not among these."""
        return frozenset(path for path, made in self.made.items() if not keys >= frozenset(made.keys))

    def rolled_back(self, lost: frozenset[str]) -> "Seen":
        """The memory from before these events. They give the same keys again, so what there is isn't made twice."""
        before = {path: mark for one in lost for path, mark in self.made[one].before.items()}
        marks = {path: mark for path, mark in {**self.marks, **before}.items() if mark is not None}
        return replace(self, marks=marks, lost=lost)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A change of what is remembered: paths with their new mark, trouble or runs, None: forgotten."""

    marks: Mapping[str, str | None] = field(default_factory=dict)
    troubles: Mapping[str, Trouble | None] = field(default_factory=dict)
    made: Mapping[str, Made | None] = field(default_factory=dict)

    def files(self) -> dict[str, bytes | None]:
        """What changes in the tree: path → content, None: removed."""
        marks = {path: f"{mark}\n".encode() if mark else None for path, mark in self.marks.items()}
        troubles = {f"{_TROUBLES}{path}": encode(one) if one else None for path, one in self.troubles.items()}
        made = {f"{_MADE}{path}": encode(one) if one else None for path, one in self.made.items()}
        return {**marks, **troubles, **made}

    def applied(self, seen: Seen, oid: str | None = None) -> Seen:
        """The memory after this; `oid`: the commit it was written to."""
        return replace(
            seen,
            oid=oid,
            marks=_changed(seen.marks, self.marks),
            troubles=_changed(seen.troubles, self.troubles),
            made=_changed(seen.made, self.made),
            unreadable=seen.unreadable - self.marks.keys(),
        )


def one_line(text: str, most: int) -> str:
    """A text of others as one line that can be printed, of bounded length."""
    line = "".join(letter if letter.isprintable() else " " for letter in text[: 10 * most])
    return " ".join(line.split())[:most]


def joined(moves: Iterable[Move]) -> Move:
    """All of them as one; of two that touch one path the later counts."""
    marks: dict[str, str | None] = {}
    troubles: dict[str, Trouble | None] = {}
    made: dict[str, Made | None] = {}
    for move in moves:
        marks.update(move.marks)
        troubles.update(move.troubles)
        made.update(move.made)
    return Move(marks=marks, troubles=troubles, made=made)


def to_files(seen: Seen) -> dict[str, bytes]:
    """The whole tree of a memory: path → content."""
    found = Move(marks=seen.marks, troubles=seen.troubles, made=seen.made).files()
    return {path: content for path, content in found.items() if content is not None}


def from_files(files: Mapping[str, bytes], oid: str | None = None) -> Seen:
    """Parse a tree. What makes no sense stands in `unreadable` and `faults`. Raises Invalid where it is too large."""
    if len(files) > MAX_SEEN:
        msg = f"the memory of triggers has {len(files)} entries; at most {MAX_SEEN} are read: delete refs/dstack/seen"
        raise Invalid(msg)
    marks: dict[str, str] = {}
    troubles: dict[str, Trouble] = {}
    made: dict[str, Made] = {}
    unreadable: set[str] = set()
    faults: list[str] = []
    for path, content in files.items():
        try:
            if path.startswith(_TROUBLES):
                about = path.removeprefix(_TROUBLES)
                troubles[about] = _trouble(about, content)
            elif path.startswith(_MADE):
                about = path.removeprefix(_MADE)
                made[about] = _made(about, content)
            else:
                marks[path] = _mark(path, content)
        except Invalid as error:
            unreadable.add(path)
            if len(faults) < _MOST_FAULTS:
                faults.append(str(error))
    return Seen(
        oid=oid, marks=marks, troubles=troubles, made=made, unreadable=frozenset(unreadable), faults=tuple(faults)
    )


def path_of(ref: str) -> str | None:
    """Where a ref of the code remote is remembered; None where it isn't one that can start anything, or is ours."""
    if pull := _PULL.fullmatch(ref):
        return f"{_PULLS}{int(pull[1] or pull[2])}"
    for prefix, kind in _KINDS.items():
        name = ref.removeprefix(prefix)
        if name != ref:
            return f"{kind}{name}" if not name.startswith("dstack/") and _is_path(name) else None
    return None


def pull_of(path: str) -> int | None:
    """The number of the pull request that is remembered here; None where it is something else."""
    number = path.removeprefix(_PULLS)
    return int(number) if number != path else None


def schedule_path(workflow: str, schedule: Schedule) -> str:
    """Where a schedule of a workflow is remembered: another cron or zone is another schedule."""
    digest = hashlib.sha256(encode([schedule.cron, schedule.zone])).hexdigest()[:12]
    return f"{SCHEDULES}{workflow}.{digest}"


def slot_text(slot: datetime) -> str:
    """A slot as it is remembered: RFC 3339 in UTC, to the second."""
    return slot.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def slot_time(text: str) -> datetime:
    """Inverse of `slot_text`."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def _mark(path: str, content: bytes) -> str:
    text = content[:_MAX_TROUBLE].decode("ascii", "replace").removesuffix("\n")
    if not _is_mark(path, text):
        msg = f"refs/dstack/seen: {shown(path)} holds {shown(text)}, which makes no sense; what is there now is taken"
        raise Invalid(msg)
    return text


def _is_mark(path: str, text: str) -> bool:
    if _SCHEDULE.fullmatch(path):
        return _is_slot(text)
    return bool(_REMEMBERED.match(path) and _is_path(path) and _OID.fullmatch(text))


def _is_slot(text: str) -> bool:
    try:
        return text >= _EARLIEST and slot_text(slot_time(text)) == text
    except ValueError:
        return False


def _trouble(about: str, content: bytes) -> Trouble:
    found = decode(content, Trouble, f"refs/dstack/seen: {_TROUBLES}{shown(about)}", limit=_MAX_TROUBLE)
    if not _is_path(about) or not all(map(str.isprintable, (found.mark, found.reason, *found.workflows))):
        msg = f"refs/dstack/seen: {_TROUBLES}{shown(about)} makes no sense"
        raise Invalid(msg)
    return found


def _made(about: str, content: bytes) -> Made:
    found = decode(content, Made, f"refs/dstack/seen: {_MADE}{shown(about)}", limit=_MAX_MADE)
    marks_are_good = all(_is_mark(path, mark or _any_mark(path)) for path, mark in found.before.items())
    if about not in found.before or not marks_are_good or not (found.against is None or _OID.fullmatch(found.against)):
        msg = f"refs/dstack/seen: {_MADE}{shown(about)} makes no sense"
        raise Invalid(msg)
    return found


def _any_mark(path: str) -> str:
    return f"{_EARLIEST}-01-01T00:00:00Z" if path.startswith(SCHEDULES) else "0" * 40


def _changed(values: Mapping[str, V], changes: Mapping[str, V | None]) -> dict[str, V]:
    kept = {path: one for path, one in values.items() if path not in changes}
    return kept | {path: one for path, one in changes.items() if one is not None}


def _is_path(name: str) -> bool:
    try:
        return bool(name) and len(name.encode()) <= MAX_PATH
    except UnicodeEncodeError:
        return False
