"""The archive of a state remote: one atomic push adds runs and takes their refs away; they are read from its tree."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from dstack.ledger import folder, git
from dstack.ledger.cache import Cache
from dstack.ledger.objects import FILE, FOLDER, Damaged, Entry, Objects
from dstack.ledger.push import RefUpdate
from dstack.model import archive, refs
from dstack.model.archive import ArchivedRun
from dstack.model.batches import batched
from dstack.model.errors import Invalid, Unavailable
from dstack.model.observation import Pushed
from dstack.model.refs import RunKey

SECONDS = 300.0

_FETCH = ("fetch", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--quiet", "--depth=1")
# A pattern, because a plain name that is absent fails the whole fetch.
_TIP = f"+{refs.ARCHIVE}*:{refs.ARCHIVE}*"
# Year, month, day.
_DEPTH = 3

_Files = Mapping[tuple[bytes, ...], Entry | None]


class Archive:
    """The archive as one process has it. For one thread at a time.

    Where the remote is on this machine its objects are borrowed. Elsewhere they are in a repository of its own beside
    the cache: shallow, and snapshots without their files, for a push must own the parents of what it sends.
    """

    def __init__(self, cache: Cache) -> None:
        """Of the remote that `cache` is of. Reads nothing yet. Raises Failed."""
        self._local = Path(cache.url).is_absolute()
        context = replace(cache.context, timeout=max(cache.context.timeout, SECONDS))
        path = cache.path if self._local else cache.path.with_name(f"{cache.path.name}-archive")
        lenders = cache.lenders if self._local else (cache.objects_folder,)
        self.cache = Cache(path, cache.url, lenders=lenders, context=context)
        self._tip: str | None = None
        self._indexed: str | None = None
        self._index: dict[str, dict[RunKey, str]] = {}

    def look(self) -> str | None:
        """Have the archive as it is now: its id, None where there is none. Raises Unavailable, Failed."""
        if self._local:
            self._tip = self.cache.remote_refs([refs.ARCHIVE]).get(refs.ARCHIVE)
        else:
            self._fetch("--prune", _TIP)
            self._tip = self.cache.objects.refs().get(refs.ARCHIVE)
        return self._tip

    def runs(self) -> Mapping[RunKey, str]:
        """All runs that were there at the last look, with the ids of their summaries. Raises Invalid, Unavailable."""
        return {key: oid for some in self._read_index().values() for key, oid in some.items()}

    def read(self, oid: str) -> ArchivedRun:
        """A summary by its id. Raises Invalid, Unavailable."""
        try:
            return archive.from_bytes(self.cache.objects.blob(oid, "summary", limit=archive.LIMIT))
        except Damaged as error:
            raise self._broken(error) from error

    def find(self, key: RunKey) -> ArchivedRun | None:
        """The run of this key, as of the last look. Raises Invalid, Unavailable."""
        oid = next((some[key] for some in self._read_index().values() if key in some), None)
        return self.read(oid) if oid else None

    def add(self, runs: Sequence[ArchivedRun]) -> Pushed:
        """Archive the runs, and take their refs away: all or nothing. Raises Unavailable, Failed, Invalid."""
        names = {refs.snapshot(run.key): run for run in runs}
        now = self.cache.remote_refs([refs.ARCHIVE, *names])
        snapshots = {names[ref].key: oid for ref, oid in now.items() if ref in names}
        before = now.get(refs.ARCHIVE)
        if not self._local:
            before = self.look()
            self._fetch_snapshots([refs.snapshot(key) for key in snapshots])
        whole = [msgspec.structs.replace(run, snapshot=snapshots.get(run.key)) for run in runs]
        try:
            commit = self._commit(whole, before)
        except Damaged as error:
            raise self._broken(error) from error
        gone = {ref: oid for run in whole for ref, oid in run.refs.items()}
        gone |= {refs.snapshot(key): oid for key, oid in snapshots.items()}
        updates = [RefUpdate(refs.ARCHIVE, before, commit), *(RefUpdate(ref, oid, None) for ref, oid in gone.items())]
        return self.cache.push(updates, atomic=True)

    def change(self, runs: Sequence[ArchivedRun]) -> Pushed:
        """Write these summaries over those that are there. Raises Unavailable, Failed, Invalid."""
        before = self.look()
        try:
            return self._push(before, self._commit([], before, changed=runs))
        except Damaged as error:
            raise self._broken(error) from error

    def remove(self, keys: Collection[RunKey]) -> Pushed:
        """Have an archive that never had these runs: its chain of commits is written anew, for all the others.

        Raises Invalid where one of the others can't be read (it would be lost), Unavailable, Failed.
        """
        before = self.look()
        if before is None:
            return Pushed(outcomes={})
        runs = [(key, self.read(oid)) for key, oid in self.runs().items()]
        gone = {_path(run): None for key, run in runs if key in keys}
        kept = [run for key, run in runs if key not in keys]
        if not self._local:
            self._fetch_history()
        try:
            objects = self.cache.objects
            tree = _with_files(objects, objects.commit(before).tree, gone)
            after: str | None = None
            for some in batched(kept, archive.MOST_RUNS):
                after = objects.write_commit(tree, _parents(some, after), _message(f"{len(some)} runs"))
        except Damaged as error:
            raise self._broken(error) from error
        return self._push(before, after)

    def _push(self, before: str | None, after: str | None) -> Pushed:
        return self.cache.push([RefUpdate(refs.ARCHIVE, before, after)], atomic=True)

    def _read_index(self) -> Mapping[str, Mapping[RunKey, str]]:
        """By the tree of each day; what is known of a day is not read again."""
        if self._indexed != self._tip:
            days = dict(self._days(self._tip)) if self._tip else {}
            index = self._index
            self._index = {oid: index.get(oid) or self._day(path, oid) for path, oid in sorted(days.items())}
            self._indexed = self._tip
        return self._index

    def _commit(self, runs: Sequence[ArchivedRun], before: str | None, *, changed: Sequence[ArchivedRun] = ()) -> str:
        objects, written = self.cache.objects, [*runs, *changed]
        blobs = objects.write_blobs([archive.to_bytes(run) for run in written])
        files = {_path(run): Entry(FILE, oid) for run, oid in zip(written, blobs, strict=True)}
        tree = _with_files(objects, objects.commit(before).tree if before else None, files)
        what = written[0].key.name if len(written) == 1 else f"{len(written)} runs"
        return objects.write_commit(tree, _parents(runs, before), _message(what))

    def _days(self, tip: str) -> Iterator[tuple[str, str]]:
        """The folders of all days, with the ids of their trees."""
        objects = self.cache.objects

        def walk(path: str, oid: str, depth: int) -> Iterator[tuple[str, str]]:
            if depth == 0:
                yield path, oid
                return
            for name, entry in objects.tree(oid, "the archive").items():
                if entry.folder:
                    yield from walk(f"{path}{name.decode(errors='replace')}/", entry.oid, depth - 1)

        try:
            yield from walk("", objects.commit(tip, "the archive").tree, _DEPTH)
        except Damaged as error:
            raise self._broken(error) from error

    def _day(self, path: str, oid: str) -> dict[RunKey, str]:
        try:
            entries = self.cache.objects.tree(oid, "the archive")
        except Damaged as error:
            raise self._broken(error) from error
        named = ((archive.parse_path(path + name.decode(errors="replace")), entry) for name, entry in entries.items())
        return {key: entry.oid for key, entry in named if key and not entry.folder}

    def _fetch_snapshots(self, names: Sequence[str]) -> None:
        """The commits alone, where the server can leave files out; all the files, where it can't."""
        if names:
            self._fetch("--filter=tree:0", *names)
            # git would go and fetch what was left out, one by one, when it packs what is new.
            for section in (f"remote.{self.cache.url}", "extensions"):
                git.run(self.cache.context, "config", "--remove-section", section)

    def _fetch_history(self) -> None:
        """All commits of the archive, without their files: what it is written anew from."""
        with folder.lock(self.cache.path):
            whole = ("--unshallow",) if (self.cache.path / "shallow").exists() else ()
            result = git.run(self.cache.context, *_FETCH[:-1], *whole, "--filter=tree:0", "--", self.cache.url, _TIP)
            for section in (f"remote.{self.cache.url}", "extensions"):
                git.run(self.cache.context, "config", "--remove-section", section)
        if result.status != 0:
            raise self.cache.unreachable(result)

    def _fetch(self, *what: str) -> None:
        options, names = (
            [one for one in what if one.startswith("--")],
            [one for one in what if not one.startswith("--")],
        )
        with folder.lock(self.cache.path):
            result = git.run(self.cache.context, *_FETCH, *options, "--", self.cache.url, *names)
        # With --depth, a pattern that nothing matches is a failure without a word.
        if result.status != 0 and not (result.status == 1 and not result.err.strip() and _TIP in names):
            raise self.cache.unreachable(result)

    def _broken(self, error: Exception) -> Unavailable:
        if not self._local:
            self.cache.renew()
            self._tip, self._indexed, self._index = None, None, {}
        return Unavailable(f"the archive of {self.cache.url} can't be read: {error}")


def bring(cache: Cache, run: ArchivedRun) -> None:
    """Have the records of an archived run in the cache. Raises Unavailable, Failed."""
    missing = [oid for oid in run.refs.values() if not cache.objects.has(oid)]
    if not missing:
        return
    kept = [f"+{oid}:refs/kept/{oid}" for oid in missing]
    with folder.lock(cache.path):
        result = git.run(cache.context, *_FETCH[:-1], "--", cache.url, *kept)
    if result.status != 0:
        raise cache.unreachable(result)


def _parents(runs: Iterable[ArchivedRun], before: str | None) -> tuple[str, ...]:
    """What a commit that adds these runs keeps alive."""
    ids = (oid for run in runs for oid in (*run.refs.values(), run.snapshot) if oid)
    return tuple(dict.fromkeys((*([before] if before else []), *ids)))


def _message(what: str) -> str:
    return f"Archive {what} [skip ci]\n\nskip-checks: true"


def _path(run: ArchivedRun) -> tuple[bytes, ...]:
    return (*run.folder.encode().split(b"/"), archive.file_name(run.key).encode())


def _with_files(objects: Objects, tree: str | None, files: _Files) -> str:
    """The id of a tree like this one, with these files; None takes one away."""
    entries = dict(objects.tree(tree, "the archive")) if tree else {}
    below: dict[bytes, dict[tuple[bytes, ...], Entry | None]] = {}
    for path, entry in files.items():
        if len(path) > 1:
            below.setdefault(path[0], {})[path[1:]] = entry
        elif entry is None:
            entries.pop(path[0], None)
        else:
            entries[path[0]] = entry
    for name, inner in below.items():
        old = entries.get(name)
        entries[name] = Entry(FOLDER, _with_files(objects, old.oid if old and old.folder else None, inner))
    return objects.write_tree(entries)


def summaries(found: Archive, keys: Iterable[RunKey]) -> Iterator[ArchivedRun]:
    """Of these runs, as far as they can be read; what can't is passed over. Raises Unavailable."""
    index = found.runs()
    for key in keys:
        try:
            run = found.read(index[key])
        except Invalid:
            continue
        if run.key == key:
            yield run
