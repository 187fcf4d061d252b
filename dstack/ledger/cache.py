"""A bare repository of our own for each state remote: what was fetched, and what is to be pushed. Disposable."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dstack.ledger import folder, git, push, refusals
from dstack.ledger.git import Context
from dstack.ledger.localrefs import LocalRefs
from dstack.ledger.objects import Damaged, Objects
from dstack.ledger.push import Line, RefUpdate
from dstack.model import refs
from dstack.model.errors import Failed, Unavailable
from dstack.model.observation import Outcome, Pushed

# Leases and refspecs go on the command line (git push reads them from nowhere else): some 300 bytes each, of 2 MiB.
_BATCH = 1_000
_MOST = 5_000
_LOOSE_REFS = 256
# From so many refs on, git's one transaction is quicker than setting each.
_MANY = 20
_ZERO = "0" * 40
_TIDY_EVERY = 500
# Of a poll that isn't the first. A runner that has not polled for two leases is taken for lost.
_LOOK_SECONDS = 40.0
# After one that hung: a connection that was asked for while the cable was out is tried ever more rarely by the system.
_BRIEF_SECONDS = 10.0
_BRIEF_LOOKS = 10
# A local remote would look after each push whether to tidy itself; now and then is enough.
_AUTOGC_EVERY = 50
_NO_AUTOGC = "--receive-pack=git -c receive.autogc=false receive-pack"
_FETCH = ("fetch", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--quiet")

# How git says that it is the remote, not our cache, that it can't read; beside what `refusals` knows.
_AWAY = ("dubious ownership", "Could not read from remote repository", "unable to access", "Permission denied")


class Cache:
    """The cache of one state remote. For one thread at a time; processes may share it.

    `objects` reads and writes what is in it. Objects written are kept until `tidy` finds them old and unreachable.
    `lenders` are the folders of objects that it borrows.
    """

    def __init__(
        self,
        path: Path,
        url: str,
        *,
        borrow: Path | None = None,
        lenders: Sequence[Path] = (),
        context: Context | None = None,
    ) -> None:
        """Open, or create, the cache at `path` (an absolute one) of the remote at `url`.

        `borrow`: a folder of objects (of the user's repository) that needn't be copied, and `lenders` more of them;
        those of a remote on this machine are borrowed anyway. `context`: how git runs (time limit, prompts), and how
        the remote is reached. Raises Failed where the folder can't be written.
        """
        self.path = path
        self.url = url
        self.borrow = borrow
        self.context = replace(context or Context(folder=path), folder=path)
        self._known: Mapping[str, str] = {}
        self._loose = 0
        self._local = LocalRefs(Path(url)) if Path(url).is_absolute() else None
        self._pushes = self._hung = 0
        lent = (borrow, *lenders, self._local and Path(url) / "objects")
        self.lenders = tuple(dict.fromkeys(one for one in lent if one))
        self.objects: Objects
        self._marks: object = None
        self._open()

    @property
    def objects_folder(self) -> Path:
        """Where its objects lie, for another repository to borrow."""
        return self.path / "objects"

    def poll(self) -> Mapping[str, str]:
        """All polled refs with their ids, after exactly one fetch. Raises Unavailable, Failed.

        A damaged cache is thrown away and made anew, which takes a second fetch. On this machine the remote's objects
        are borrowed and its refs are read from their files, so that a poll starts no process.
        """
        if self._local and (read := self._local.read()) is not None:
            return self._looked(read)
        with folder.lock(self.path):
            try:
                found = self._fetch_all()
            except Damaged:
                self._renew()
                found = self._fetch_again()
            self._pack_refs(found)
        self._known = found
        return found

    def push(self, updates: Sequence[RefUpdate], *, atomic: bool) -> Pushed:
        """Push, every ref leased to its `old`. Atomic: all or nothing; else each for itself.

        Raises Unavailable where it is not known what was won, Failed where the remote can't do it at all.
        """
        if atomic and len(updates) > _MOST:
            msg = f"{len(updates)} refs are too many for one atomic push: at most {_MOST}"
            raise Failed(msg)
        pushed = [self._push(batch, atomic=atomic) for batch in push.batches(updates, _MOST if atomic else _BATCH)]
        outcomes = {ref: outcome for one in pushed for ref, outcome in one.outcomes.items()}
        return Pushed(outcomes=outcomes, reasons={ref: why for one in pushed for ref, why in one.reasons.items()})

    def remote_refs(self, names: Sequence[str]) -> dict[str, str]:
        """The ids that the remote has now for these full names. It lists all its refs for this, so: only in doubt."""
        result = self._run("ls-remote", "--quiet", self.url, *names)
        if result.status != 0:
            raise self.unreachable(result)
        lines = [line.partition("\t") for line in result.out.decode(errors="replace").splitlines()]
        return {ref: oid for oid, _, ref in lines if ref in set(names)}

    def renew(self) -> None:
        """Throw the folder away and make it anew, empty."""
        with folder.lock(self.path):
            self._renew()

    def tidy(self) -> None:
        """Pack what has gathered, if it is much; remove what crashes have left. For daemons; takes up to seconds."""
        folder.remove_leftovers(self.path)
        with folder.lock(self.path):
            self._run("-c", "gc.auto=2000", "-c", "gc.autoDetach=false", "gc", "--auto", "--quiet")

    def make_shallow(self, source: Path | None) -> None:
        """Share the depth of the repository borrowed from (its file `shallow`; None: it is whole)."""
        target = self.path / "shallow"
        if source is None:
            target.unlink(missing_ok=True)
        else:
            scratch = self.path / f"shallow.{secrets.token_hex(4)}"
            scratch.write_bytes(source.read_bytes())
            scratch.replace(target)

    def _looked(self, read: dict[str, str]) -> Mapping[str, str]:
        """The same value as before where nothing has changed, so that others needn't compare."""
        if folder.marks(self.path) != self._marks:
            with folder.lock(self.path):
                self._open()
        if read != self._known:
            self._known = read
        return self._known

    def _open(self) -> None:
        self.objects = folder.open_folder(self.path, self.lenders)
        self._marks = folder.marks(self.path)

    def _renew(self) -> None:
        folder.discard(self.path)
        self._known, self._loose = {}, 0
        self._open()

    def _fetch_all(self) -> dict[str, str]:
        try:
            result = self._run(*_FETCH, "--prune", self.url, *refs.POLLED, context=self._patient())
        except Unavailable:
            self._hung += 1
            raise
        self._hung = 0
        if result.status != 0:
            if self._is_away(result):
                raise self.unreachable(result)
            raise Damaged(result.reason)
        return self.objects.refs()

    def _patient(self) -> Context:
        """A connection that hangs must not keep a daemon from its next look for long."""
        if not self._known:
            return replace(self.context, timeout=git.TIMEOUT)
        brief = self._hung % _BRIEF_LOOKS > 0
        return replace(self.context, timeout=_BRIEF_SECONDS if brief else _LOOK_SECONDS)

    def _fetch_again(self) -> dict[str, str]:
        """Into a new cache, where damage is not ours."""
        try:
            return self._fetch_all()
        except Damaged as error:
            msg = f"the state remote {self.url} can't be read: {error}"
            raise Unavailable(msg) from error

    def _push(self, updates: Sequence[RefUpdate], *, atomic: bool) -> Pushed:
        if not updates:
            return Pushed(outcomes={})
        options = ["--porcelain", "--no-verify", *(["--atomic"] if atomic else []), *(one.lease for one in updates)]
        self._pushes += 1
        if self._local and self._pushes % _AUTOGC_EVERY:
            options.append(_NO_AUTOGC)
        if self._pushes % _TIDY_EVERY == 0:
            self.tidy()
        try:
            result = self._run("push", *options, self.url, *(one.refspec for one in updates))
        except Damaged as error:
            msg = f"the cache {self.path} was thrown away by another process: try again"
            raise Unavailable(msg) from error
        lines = push.parse_porcelain(result.out)
        if push.unknown(lines, updates):
            if not self._is_away(result):
                self.renew()  # it may be our own folder that git can't read
            raise self.unreachable(result)
        outcomes = {one.ref: push.outcome(lines[one.ref]) for one in updates} | self._raced(lines, updates)
        self._follow(updates, outcomes)
        reasons = {ref: push.reason(lines[ref], result.err) for ref, got in outcomes.items() if got is not Outcome.WON}
        return Pushed(outcomes=outcomes, reasons=reasons)

    def _raced(self, lines: Mapping[str, Line], updates: Sequence[RefUpdate]) -> dict[str, Outcome]:
        """Among refs refused for an unclear cause, those that have moved meanwhile: they are lost."""
        doubtful = push.contended(lines)
        if not doubtful:
            return {}
        now = self.remote_refs(doubtful)
        return {one.ref: Outcome.LOST for one in updates if one.ref in doubtful and now.get(one.ref) != one.old}

    def _follow(self, updates: Sequence[RefUpdate], outcomes: Mapping[str, Outcome]) -> None:
        """Have our own refs say what the remote's say now. What another process holds comes with the next poll."""
        if self._local:
            return
        won = [one for one in updates if outcomes[one.ref] is Outcome.WON and is_polled(one.ref)]
        if len(won) > _MANY:
            lines = (f"update {one.ref}\0{one.new or _ZERO}\0\0".encode() for one in won)
            git.run(self.context, "update-ref", "-z", "--stdin", stdin=b"".join(lines))
        else:
            for one in won:
                self.objects.set_ref(one.ref, one.new)

    def _pack_refs(self, found: Mapping[str, str]) -> None:
        """One file for all refs is read far faster than a file each."""
        self._loose += sum(1 for name, oid in found.items() if self._known.get(name) != oid)
        if self._loose > _LOOSE_REFS:
            self._run("pack-refs", "--all")
            self._loose = 0

    def _run(self, *args: str, context: Context | None = None) -> git.Result:
        """Run git in the cache. Raises Damaged where another process has thrown the folder away."""
        try:
            return git.run(context or self.context, *args)
        except Failed as error:
            if self.path.is_dir():
                raise
            raise Damaged(str(error)) from error

    def _is_away(self, result: git.Result) -> bool:
        """Whether it is the remote that could not be read, not our cache."""
        text = result.err.decode(errors="replace")
        return any(word in text for word in _AWAY) or refusals.explain(text, self.url, "") is not None

    def unreachable(self, result: git.Result) -> Unavailable | Failed:
        """Why a git that was to talk to the remote has failed, with the way out."""
        text = result.err.decode(errors="replace")
        if "dubious ownership" in text:
            remedy = f"git config --global --add safe.directory {self.url}"
            return Failed(f"{self.url} belongs to another user: run `{remedy}`")
        if "does not support --atomic" in text:
            return Failed(f"the state remote {self.url} can't push several refs as one (--atomic), which dstack needs")
        here = self.url.startswith(("/", "file:"))
        known = None if here else refusals.explain(text, f"the state remote {self.url}", "can't be reached")
        said = refusals.unlogged(result.reason) or "git gave no reason"
        return known or Unavailable(f"the state remote {self.url} can't be reached: {said}", away=here)


def is_polled(ref: str) -> bool:
    """Whether a poll fetches this ref."""
    return any(ref.startswith(pattern.removeprefix("+").partition("*")[0]) for pattern in refs.POLLED)
