"""What the refs of a poll mention: every digest in their records, read as bytes, whatever version wrote them."""

from collections.abc import Collection, Iterator, Mapping

from dstack.ledger.objects import Objects
from dstack.ledger.runs import RUN, RUN_LIMIT
from dstack.ledger.tags import TAG_FILE
from dstack.model import refs
from dstack.model.errors import Invalid
from dstack.model.pruning import mentioned

# A note of a job that was tried for a year is some MiB.
LIMIT = 256 * 1024 * 1024
_GENERATIONS = 10_000


def digests(objects: Objects, found: Mapping[str, str], known: dict[str, set[str]] | None = None) -> set[str]:
    """All digests in runs, notes, assignments and tags. Raises Invalid, Damaged: then nothing can be told.

    `known` remembers blobs by id, for the next time.
    """
    memory = {} if known is None else known
    every: set[str] = set()
    for ref, oid in found.items():
        for blob in _blobs(objects, ref, oid):
            if blob not in memory:
                memory[blob] = mentioned(objects.blob(blob, f"a record of {ref}", limit=LIMIT))
            every |= memory[blob]
    return every


def tagged(objects: Objects, found: Mapping[str, str]) -> set[str]:
    """The commits that tags name."""
    return {objects.peeled(oid) for ref, oid in found.items() if refs.parse_tag(ref)}


def _blobs(objects: Objects, ref: str, oid: str) -> Iterator[str]:
    if refs.parse_run_branch(ref):
        for commit in _chain(objects, oid):
            yield from _named(objects, commit, (RUN,))
    elif refs.parse_tag(ref):
        yield from _named(objects, objects.peeled(oid), (TAG_FILE, RUN))
    elif refs.parse_note(ref) or refs.parse_assignment(ref):
        yield from _all(objects, objects.commit(oid, ref).tree)


def _chain(objects: Objects, tip: str) -> Iterator[str]:
    """A branch from its tip to its root. Raises Damaged where a part is missing: it may mention something."""
    for _ in range(_GENERATIONS):
        yield tip
        parents = objects.commit(tip, "a run's branch").parents
        if not parents:
            return
        tip = parents[0]


def _named(objects: Objects, commit: str, names: Collection[bytes]) -> Iterator[str]:
    """Of what isn't ours, nothing: a branch or tag may name anything."""
    try:
        tree = objects.tree(objects.commit(commit).tree)
    except Invalid:
        return
    ids = (entry.oid for name, entry in tree.items() if name in names and not entry.folder)
    yield from (oid for oid in ids if objects.size(oid) <= RUN_LIMIT)


def _all(objects: Objects, tree: str) -> Iterator[str]:
    for entry in objects.tree(tree).values():
        if entry.folder:
            yield from _all(objects, entry.oid)
        else:
            yield entry.oid
