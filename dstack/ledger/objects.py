"""Git objects, read and written in process: the one home of pygit2."""

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pygit2
from pygit2.enums import ObjectType, SortMode

from dstack.ledger.pack import write_pack
from dstack.model.codec import blob_id
from dstack.model.errors import DstackError, Failed, Invalid

FILE, EXECUTABLE, FOLDER = b"100644", b"100755", b"40000"
LINK, SUBMODULE = b"120000", b"160000"
# A tree of 10,000 jobs takes 400 KB, and so may a folder of the user's take; what is larger is no record of ours.
TREE_LIMIT = 64 * 1024 * 1024
COMMIT_LIMIT = 1024 * 1024
AUTHOR_NAME, AUTHOR_MAIL = "dstack", "dstack@localhost"

# From so many objects on, a pack is quicker than a file each, though it costs a process.
_MANY = 200
_TAGS_DEEP = 8


class Damaged(DstackError):
    """An object that must be there is missing or can't be read: the cache is broken, and is to be made anew."""


class Entry(NamedTuple):
    """One line of a tree: `mode` as git writes it, `oid` a full id."""

    mode: bytes
    oid: str

    @property
    def folder(self) -> bool:
        """Whether it is a tree."""
        return self.mode == FOLDER


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit as far as dstack looks: full ids and the message."""

    tree: str
    parents: tuple[str, ...]
    message: str = ""


Tree = Mapping[bytes, Entry]


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of one bare repository of ours, and of what it borrows from. `clock`: seconds since the epoch."""

    repository: pygit2.Repository
    clock: Callable[[], float] = field(default=time.time)

    @classmethod
    def open(cls, path: Path) -> "Objects":
        """Open the repository at `path`. Raises Damaged where it is none."""
        try:
            return cls(pygit2.Repository(str(path)))
        except (pygit2.GitError, KeyError, ValueError) as error:
            msg = f"{path} is no git repository: {error}"
            raise Damaged(msg) from error

    def blob(self, oid: str, what: str, *, limit: int) -> bytes:
        """A blob's bytes. Raises Invalid, naming `what`, where it is none or has more than `limit` bytes; Damaged."""
        return self._read(oid, ObjectType.BLOB, what, limit)

    def tree(self, oid: str, what: str = "tree") -> Tree:
        """A tree's entries by name. Raises Invalid where it is none, Damaged."""
        return parse_tree(self._read(oid, ObjectType.TREE, what, TREE_LIMIT))

    def commit(self, oid: str, what: str = "commit") -> Commit:
        """Raises Invalid where it is no commit, Damaged."""
        return _parse_commit(self._read(oid, ObjectType.COMMIT, what, COMMIT_LIMIT))

    def raw_commit(self, oid: str) -> bytes:
        """A commit's very bytes. Raises Invalid where it is none, Damaged."""
        return self._read(oid, ObjectType.COMMIT, "commit", COMMIT_LIMIT)

    def peeled(self, oid: str) -> str:
        """The id of what an annotated tag names, however deep; else `oid` itself. Raises Invalid, Damaged."""
        for _ in range(_TAGS_DEEP):
            if self._header(oid)[0] != ObjectType.TAG:
                return oid
            data = self._read(oid, ObjectType.TAG, "annotated tag", COMMIT_LIMIT)
            oid = data.partition(b"\n")[0].removeprefix(b"object ").decode(errors="replace")
        msg = f"{oid[:12]} is a tag of a tag of a tag …"
        raise Invalid(msg)

    def size(self, oid: str) -> int:
        """An object's size in bytes, without reading it. Raises Damaged."""
        return self._header(oid)[1]

    def has(self, oid: str) -> bool:
        """Whether the object is here, or where this repository borrows from."""
        return oid in self.repository.odb

    def history(self, tip: str, depth: int) -> Iterator[str]:
        """The ids of the commit `tip` and those behind it, newest first, at most `depth`. Ends where history is cut."""
        try:
            for commit in islice(self.repository.walk(tip, SortMode.TIME), depth):
                yield str(commit.id)
        except (pygit2.GitError, KeyError, ValueError):
            return

    def any_of(self, oids: Iterable[str], folder: Path) -> bool:
        """Whether the folder of objects of another repository has one of these."""
        try:
            odb = pygit2.Odb(str(folder))
            return any(odb.exists(oid) for oid in oids)
        except (pygit2.GitError, KeyError, ValueError):
            return False

    def write_blob(self, data: bytes) -> str:
        """Its full id."""
        return self._write(ObjectType.BLOB, data)

    def write_blobs(self, blobs: Sequence[bytes]) -> tuple[str, ...]:
        """Their full ids, in order. Raises Failed."""
        if len(blobs) < _MANY:
            return tuple(self.write_blob(data) for data in blobs)
        ids = tuple(blob_id(data) for data in blobs)
        write_pack(Path(self.repository.path), dict(zip(ids, blobs, strict=True)).values())
        return ids

    def write_tree(self, entries: Tree) -> str:
        """Its full id."""
        return self._write(ObjectType.TREE, format_tree(entries))

    def write_commit(self, tree: str, parents: Sequence[str], message: str) -> str:
        """A commit by `dstack`. A nonce ends its message, so that no two are alike (DESIGN section 8)."""
        seconds = int(self.clock())
        lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
        lines += [f"{role} {AUTHOR_NAME} <{AUTHOR_MAIL}> {seconds} +0000" for role in ("author", "committer")]
        return self._write(ObjectType.COMMIT, "\n".join([*lines, "", with_nonce(message)]).encode())

    def refs(self) -> dict[str, str]:
        """Every ref of this repository with its full id. Raises Damaged."""
        try:
            return {ref.name: str(ref.target) for ref in self.repository.references.iterator()}
        except (pygit2.GitError, KeyError, ValueError) as error:
            msg = f"the refs of {self.repository.path} can't be read: {error}"
            raise Damaged(msg) from error

    def set_ref(self, name: str, oid: str | None) -> bool:
        """Point a ref of this repository at `oid`, or remove it (None). False where another process holds it."""
        try:
            if oid is not None:
                self.repository.references.create(name, oid, force=True)
            elif name in self.repository.references:
                self.repository.references.delete(name)
        except (pygit2.GitError, KeyError, ValueError, OSError):
            return False
        return True

    def _read(self, oid: str, kind: ObjectType, what: str, limit: int) -> bytes:
        found, size = self._header(oid)
        if found != kind:
            msg = f"{what} ({oid[:12]}) is no {kind.name.lower()}"
            raise Invalid(msg)
        if size > limit:
            msg = f"{what} ({oid[:12]}) has {size} bytes; at most {limit} are accepted"
            raise Invalid(msg)
        try:
            return self.repository.odb.read(oid)[1]
        except (pygit2.GitError, KeyError, ValueError) as error:
            raise _damaged(oid, error) from error

    def _header(self, oid: str) -> tuple[int, int]:
        try:
            kind, size = self.repository.odb.read_header(oid)
        except (pygit2.GitError, KeyError, ValueError) as error:
            raise _damaged(oid, error) from error
        return kind, size

    def _write(self, kind: ObjectType, data: bytes) -> str:
        try:
            return str(self.repository.odb.write(kind, data))
        except (pygit2.GitError, KeyError, ValueError, OSError) as error:
            msg = f"can't write to the cache {self.repository.path}: {error}"
            raise Failed(msg) from error


def with_nonce(message: str) -> str:
    """A commit's message that no other has."""
    return "\n".join([message.rstrip("\n"), "", f"Nonce: {secrets.token_hex(8)}", ""])


def parse_tree(data: bytes) -> dict[bytes, Entry]:
    """The entries of a tree object, by name. Raises Invalid."""
    entries: dict[bytes, Entry] = {}
    at, end = 0, len(data)
    while at < end:
        zero = data.find(b"\0", at)
        mode, blank, name = data[at:zero].partition(b" ")
        at = zero + 21
        if zero < 0 or not blank or not name or at > end:
            msg = "a tree object is malformed"
            raise Invalid(msg)
        entries[name] = Entry(mode, data[zero + 1 : at].hex())
    return entries


def format_tree(entries: Tree) -> bytes:
    """The tree object of these entries, in git's order (a folder sorts as if its name ended in a slash)."""
    order = sorted(entries.items(), key=lambda item: item[0] + b"/" if item[1].folder else item[0])
    return b"".join(b"%b %b\0%b" % (entry.mode, name, bytes.fromhex(entry.oid)) for name, entry in order)


def tree_id(entries: Tree) -> str:
    """The id a tree of these entries has, without writing it."""
    data = format_tree(entries)
    return hashlib.sha1(b"tree %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def create(path: Path, lenders: Sequence[Path]) -> None:
    """Make an empty bare repository at `path` that reads also the objects in these folders. Raises Failed."""
    try:
        pygit2.init_repository(str(path), bare=True)
        if lenders:
            (path / "objects/info").mkdir(exist_ok=True)
            (path / "objects/info/alternates").write_bytes(b"".join(os.fsencode(one) + b"\n" for one in lenders))
    except (OSError, pygit2.GitError) as error:
        msg = f"the cache {path} can't be created: {error}"
        raise Failed(msg) from error


def lenders_of(path: Path) -> tuple[Path, ...]:
    """The folders of objects that the repository at `path` was made to read as well."""
    try:
        return tuple(Path(os.fsdecode(line)) for line in (path / "objects/info/alternates").read_bytes().splitlines())
    except OSError:
        return ()


def _parse_commit(data: bytes) -> Commit:
    head, _, message = data.partition(b"\n\n")
    lines = [line.partition(b" ") for line in head.split(b"\n")]
    trees = [value.decode(errors="replace") for name, _, value in lines if name == b"tree"]
    if not trees:
        msg = "a commit object is malformed"
        raise Invalid(msg)
    parents = tuple(value.decode(errors="replace") for name, _, value in lines if name == b"parent")
    return Commit(tree=trees[0], parents=parents, message=message.decode(errors="replace"))


def _damaged(oid: str, error: Exception) -> Damaged:
    return Damaged(f"object {oid} can't be read: {error}")
