"""What a snapshot brings that HEAD doesn't have: to be said before it is sent, and refused where it is too much."""

from collections.abc import Iterator
from dataclasses import dataclass

from dstack.ledger.objects import FOLDER, SUBMODULE, Entry, Objects, Tree
from dstack.ledger.untracked import MOST_SIZE, WARN_SIZE, shown, size_text
from dstack.model.errors import Invalid

_NOTHING = Entry(b"", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Travels:
    """Files changed against HEAD (new ones among them), deleted ones, and the bytes of the new contents.

    `untracked` counts the new files that git doesn't know yet. `whole`: the remote knows no commit of this history, so
    every file is sent. `source`: the run whose code is run again, so that nothing is sent.
    """

    changed: int = 0
    deleted: int = 0
    size: int = 0
    untracked: int = 0
    whole: bool = False
    warnings: tuple[str, ...] = ()
    source: str = ""

    def __str__(self) -> str:
        """A sentence."""
        if self.source:
            return f"the code of {self.source}, as it was"
        if self.whole:
            return "every file of the repository as it stands, without its history"
        if not self.changed and not self.deleted:
            return "the commit that is checked out, as it is"
        parts = [f"{self.changed} changed files ({size_text(self.size)}), {self.untracked} of them untracked"]
        parts += [f"{self.deleted} deletions"] if self.deleted else []
        return " and ".join(parts) + ", on top of the commit that is checked out"


def travels(objects: Objects, head: str, tree: str, *, include: frozenset[bytes], whole: bool) -> Travels:
    """Compare two trees. Raises Invalid where a file not in `include` is too large."""
    changed = list(differences(objects, head, tree))
    new = [(name, entry) for name, entry in changed if entry.oid and entry.mode != SUBMODULE]
    sizes = {name: objects.size(entry.oid) for name, entry in new}
    _refuse({name: size for name, size in sizes.items() if name not in include})
    large = [f"{shown(name)} has {size_text(size)}" for name, size in sizes.items() if size > WARN_SIZE]
    return Travels(
        changed=len(new),
        deleted=sum(1 for _, entry in changed if not entry.oid),
        size=sum(sizes.values()),
        whole=whole,
        warnings=tuple(f"{one} and travels with the run: git is not made for large files" for one in large),
    )


def differences(objects: Objects, old: str, new: str, prefix: bytes = b"") -> Iterator[tuple[bytes, Entry]]:
    """Paths whose content or mode differs, with what they are in the new tree (an entry without id: gone)."""
    if old == new:
        return
    before, after = _tree(objects, old), _tree(objects, new)
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name, _NOTHING), after.get(name, _NOTHING)
        if was == now:
            continue
        if was.folder or now.folder:
            yield from differences(objects, _folder(was), _folder(now), prefix + name + b"/")
        if (was.oid and not was.folder) or (now.oid and not now.folder):
            yield prefix + name, now if now.mode != FOLDER else _NOTHING


def _tree(objects: Objects, oid: str) -> Tree:
    return objects.tree(oid) if oid else {}


def _folder(entry: Entry) -> str:
    return entry.oid if entry.folder else ""


def _refuse(sizes: dict[bytes, int]) -> None:
    for name, size in sizes.items():
        if size > MOST_SIZE:
            msg = f"{shown(name)} has {size_text(size)}, and at most {size_text(MOST_SIZE)} travel: keep it in git LFS"
            raise Invalid(msg)
