"""The memory of triggers as a commit: read from the tree of `refs/dstack/seen`, and written with changes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from dstack.ledger.objects import FILE, FOLDER, Entry, Objects, Tree
from dstack.model import seen
from dstack.model.errors import Invalid
from dstack.model.seen import MAX_SEEN, Move, Seen

FILE_LIMIT = 16 * 1024
# The keys of as many runs as go into one push.
MADE_LIMIT = 256 * 1024
# Folders in one another: a branch's name has slashes.
MAX_DEEP = 200
TROUBLES = b"troubles"
MOST_TROUBLES = 1000

_MESSAGE = "What triggers have seen [skip ci]\n\nskip-checks: true"

_Files = Mapping[tuple[bytes, ...], bytes | None]


def read_seen(objects: Objects, oid: str) -> Seen:
    """The memory that stands in this commit. Raises Invalid, Damaged."""
    found: dict[str, bytes] = {}
    for path, entry in _walk(objects, objects.commit(oid).tree, b"", 0):
        if len(found) >= MAX_SEEN:
            msg = f"the memory of triggers has more than {MAX_SEEN} entries: delete refs/dstack/seen"
            raise Invalid(msg)
        found[path.decode(errors="replace")] = _content(objects, path.decode(errors="replace"), entry.oid)
    return seen.from_files(found, oid)


@dataclass(slots=True)
class SeenReader:
    """Reads one memory after the other: of the next one only what differs from the one before."""

    _tree: str = ""
    _last: Seen = field(default_factory=Seen)

    def read(self, objects: Objects, oid: str) -> Seen:
        """The memory that stands in this commit. Raises Invalid, Damaged."""
        tree = objects.commit(oid).tree
        if tree != self._tree:
            self._last = self._follow(objects, tree) or read_seen(objects, oid)
            self._tree = tree
        return replace(self._last, oid=oid)

    def _follow(self, objects: Objects, tree: str) -> Seen | None:
        """None where all of it is to be read: there is nothing to follow, or it holds what makes no sense."""
        if not self._tree or self._last.unreadable or not objects.has(self._tree):
            return None
        changed = dict(_differing(objects, self._tree, tree, b""))
        added = {path: _content(objects, path, blob) for path, blob in changed.items() if blob}
        found = seen.from_files(added)
        marks = {path: mark for path, mark in self._last.marks.items() if path not in changed}
        troubles = {path: one for path, one in self._last.troubles.items() if f"troubles/{path}" not in changed}
        made = {path: one for path, one in self._last.made.items() if f"made/{path}" not in changed}
        if found.unreadable or len(marks) + len(found.marks) > MAX_SEEN:
            return None
        return Seen(
            marks={**marks, **found.marks}, troubles={**troubles, **found.troubles}, made={**made, **found.made}
        )


def read_troubles(objects: Objects, oid: str) -> Seen:
    """Of the memory only what kept events from starting runs, which is read quickly. Raises Invalid, Damaged."""
    entry = objects.tree(objects.commit(oid).tree).get(TROUBLES)
    if entry is None or not entry.folder:
        return Seen(oid=oid)
    found: dict[str, bytes] = {}
    for path, file in islice(_walk(objects, entry.oid, TROUBLES + b"/", 1), MOST_TROUBLES):
        found[path.decode(errors="replace")] = _content(objects, path.decode(errors="replace"), file.oid)
    return seen.from_files(found, oid)


def write_seen(objects: Objects, base: str | None, move: Move) -> str:
    """The id of the commit that follows the commit `base` (None: the first one). Raises Invalid, Damaged, Failed."""
    root = objects.tree(objects.commit(base).tree) if base else {}
    files = {tuple(path.encode().split(b"/")): content for path, content in move.files().items()}
    entries = _changed(objects, root, files)
    return objects.write_commit(objects.write_tree(entries), [base] if base else [], _MESSAGE)


def _content(objects: Objects, path: str, blob: str) -> bytes:
    limit = MADE_LIMIT if path.startswith("made/") else FILE_LIMIT
    return objects.blob(blob, "refs/dstack/seen", limit=limit)


def _walk(objects: Objects, tree: str, prefix: bytes, depth: int) -> Iterator[tuple[bytes, Entry]]:
    if depth > MAX_DEEP:
        msg = f"the folders of refs/dstack/seen are more than {MAX_DEEP} deep: delete it"
        raise Invalid(msg)
    for name, entry in objects.tree(tree).items():
        if entry.folder:
            yield from _walk(objects, entry.oid, prefix + name + b"/", depth + 1)
        else:
            yield prefix + name, entry


def _differing(objects: Objects, old: str, new: str, prefix: bytes) -> Iterator[tuple[str, str | None]]:
    """The paths of files that differ between two trees, with the ids of the new ones; None: gone. Raises Invalid."""
    if prefix.count(b"/") > MAX_DEEP:
        msg = f"the folders of refs/dstack/seen are more than {MAX_DEEP} deep: delete it"
        raise Invalid(msg)
    before, after = (objects.tree(one) if one else {} for one in (old, new))
    for name in [*(name for name in before if name not in after), *after]:
        was, now = before.get(name), after.get(name)
        if was == now:
            continue
        if was is not None and not was.folder and (now is None or now.folder):
            yield (prefix + name).decode(errors="replace"), None
        inner = [one.oid if one is not None and one.folder else "" for one in (was, now)]
        if any(inner):
            yield from _differing(objects, inner[0], inner[1], prefix + name + b"/")
        if now is not None and not now.folder:
            yield (prefix + name).decode(errors="replace"), now.oid


def _changed(objects: Objects, before: Tree, files: _Files) -> dict[bytes, Entry]:
    """The entries with these files in it, None: without. What stands in the way of a folder or file gives way."""
    entries = dict(before)
    inner: dict[bytes, dict[tuple[bytes, ...], bytes | None]] = {}
    for path, content in files.items():
        if len(path) > 1:
            inner.setdefault(path[0], {})[path[1:]] = content
        elif content is not None:
            entries[path[0]] = Entry(FILE, objects.write_blob(content))
        elif path[0] in entries and not entries[path[0]].folder:
            del entries[path[0]]
    for name, below in inner.items():
        old = entries.get(name)
        is_new = any(content is not None for content in below.values())
        if old is not None and not old.folder and (name,) in files and not is_new:
            continue  # this very change put a file there
        inside = _changed(objects, objects.tree(old.oid) if old is not None and old.folder else {}, below)
        if inside:
            entries[name] = Entry(FOLDER, objects.write_tree(inside))
        elif old is not None and old.folder:
            del entries[name]
    return entries
