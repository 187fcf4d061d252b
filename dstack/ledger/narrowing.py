"""The part of a tree that a workflow depends on (`repo.include`): the same for its digest and for its checkout.

It is a tree too: of the files that a glob names, and of the `.gitattributes` on the way to them, by which git writes
them. `.dstack/` is never in it.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from dstack.ledger.objects import Entry, Objects, Tree, tree_id
from dstack.model.errors import Invalid
from dstack.model.globs import matcher

DSTACK = b".dstack"
ATTRIBUTES = b".gitattributes"
MAX_DEEP = 200

_SPECIAL = frozenset("*?[")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a run's workflows depend on: the digest of each one's files, and sentences about globs that name nothing."""

    digests: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def contents(objects: Objects, tree: str, includes: Mapping[str, tuple[str, ...]]) -> Contents:
    """The digests of the files of a tree that workflows depend on, by the globs of each (none: all files)."""
    digests: dict[tuple[str, ...], str] = {}
    warnings: list[str] = []
    for name, globs in includes.items():
        if globs not in digests:
            digests[globs] = tree_id(narrowed(objects, tree, globs))
        warnings += [
            f"the workflow {name} depends on {glob!r} (repo.include), which names no file of the repository"
            for glob in _idle(objects, tree, globs)
        ]
    return Contents(digests={name: digests[globs] for name, globs in includes.items()}, warnings=tuple(warnings))


def narrowed(objects: Objects, tree: str, globs: Iterable[str]) -> Tree:
    """The entries of the narrowed tree at the top. Without globs: all but `.dstack/`. Raises Invalid, Damaged."""
    entries = {name: entry for name, entry in objects.tree(tree).items() if name != DSTACK}
    wanted = tuple(globs)
    return _Narrowing.of(objects, wanted).part(entries, "", 0) if wanted else entries


def write_narrowed(objects: Objects, tree: str, globs: Iterable[str]) -> str:
    """Write the narrowed tree; its full id. Raises Invalid, Damaged, Failed."""
    narrowing = _Narrowing.of(objects, tuple(globs), write=objects.write_tree)
    entries = {name: entry for name, entry in objects.tree(tree).items() if name != DSTACK}
    return objects.write_tree(narrowing.part(entries, "", 0))


def _idle(objects: Objects, tree: str, globs: tuple[str, ...]) -> Iterator[str]:
    for glob in globs:
        if not any(name != ATTRIBUTES for name in narrowed(objects, tree, (glob,))):
            yield glob


@dataclass(frozen=True, slots=True, kw_only=True)
class _Narrowing:
    """`roots`: the folders that globs begin with, name by name, as far as they are plain. `write` gives a tree's id."""

    objects: Objects
    matches: Callable[[str], bool]
    roots: tuple[tuple[str, ...], ...]
    write: Callable[[Tree], str] = field(default=tree_id)

    @classmethod
    def of(cls, objects: Objects, globs: tuple[str, ...], write: Callable[[Tree], str] = tree_id) -> "_Narrowing":
        return cls(objects=objects, matches=matcher(globs), roots=tuple(_root(glob) for glob in globs), write=write)

    def part(self, entries: Tree, path: str, depth: int) -> dict[bytes, Entry]:
        """What of a folder at `path` (empty, or ending in a slash) is wanted; empty where nothing is."""
        if depth > MAX_DEEP:
            msg = f"the folders of the repository are more than {MAX_DEEP} deep at {path[:200]!r}"
            raise Invalid(msg)
        found: dict[bytes, Entry] = {}
        for name, entry in entries.items():
            place = path + os.fsdecode(name)
            # A glob that names a folder takes all that is in it.
            if self.matches(place):
                found[name] = entry
            elif entry.folder and self._leads_on(place):
                inside = self.part(self.objects.tree(entry.oid), f"{place}/", depth + 1)
                if inside:
                    found[name] = Entry(entry.mode, self.write(inside))
        if found and ATTRIBUTES in entries:
            found[ATTRIBUTES] = entries[ATTRIBUTES]
        return found

    def _leads_on(self, folder: str) -> bool:
        """Whether a glob may name something below this folder."""
        names = tuple(folder.split("/"))
        return any(all(a == b for a, b in zip(names, root, strict=False)) for root in self.roots)


def _root(glob: str) -> tuple[str, ...]:
    names: list[str] = []
    for part in glob.split("/"):
        if _SPECIAL & set(part):
            break
        if part not in {"", "."}:
            names.append(part)
    return tuple(names)
