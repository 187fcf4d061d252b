"""The memory of triggers as a commit: read from the tree of `refs/dstack/seen`, and written with changes."""

from collections.abc import Iterator, Mapping
from itertools import islice

from dstack.ledger.objects import FILE, FOLDER, Entry, Objects, Tree
from dstack.model import seen
from dstack.model.errors import Invalid
from dstack.model.seen import MAX_SEEN, Move, Seen

FILE_LIMIT = 16 * 1024
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
        found[path.decode(errors="replace")] = objects.blob(entry.oid, "refs/dstack/seen", limit=FILE_LIMIT)
    return seen.from_files(found, oid)


def read_troubles(objects: Objects, oid: str) -> Seen:
    """Of the memory only what kept events from starting runs, which is read quickly. Raises Invalid, Damaged."""
    entry = objects.tree(objects.commit(oid).tree).get(TROUBLES)
    if entry is None or not entry.folder:
        return Seen(oid=oid)
    found: dict[str, bytes] = {}
    for path, file in islice(_walk(objects, entry.oid, TROUBLES + b"/", 1), MOST_TROUBLES):
        found[path.decode(errors="replace")] = objects.blob(file.oid, "refs/dstack/seen", limit=FILE_LIMIT)
    return seen.from_files(found, oid)


def write_seen(objects: Objects, base: str | None, move: Move) -> str:
    """The id of the commit that follows the commit `base` (None: the first one). Raises Invalid, Damaged, Failed."""
    root = objects.tree(objects.commit(base).tree) if base else {}
    files = {tuple(path.encode().split(b"/")): content for path, content in move.files().items()}
    entries = _changed(objects, root, files)
    return objects.write_commit(objects.write_tree(entries), [base] if base else [], _MESSAGE)


def _walk(objects: Objects, tree: str, prefix: bytes, depth: int) -> Iterator[tuple[bytes, Entry]]:
    if depth > MAX_DEEP:
        msg = f"the folders of refs/dstack/seen are more than {MAX_DEEP} deep: delete it"
        raise Invalid(msg)
    for name, entry in objects.tree(tree).items():
        if entry.folder:
            yield from _walk(objects, entry.oid, prefix + name + b"/", depth + 1)
        else:
            yield prefix + name, entry


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
