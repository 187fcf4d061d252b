"""What triggers want to know of commits, looked up in the code remote: who made them, what they start, what differs."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dstack.ledger.codecache import CodeCache
from dstack.ledger.objects import Damaged, Objects
from dstack.ledger.snapshot import WORKFLOWS, File, file_of
from dstack.model.errors import Invalid, Unavailable
from dstack.model.firing import CommitFacts, Diff, Facts, Lookups, read_commit

MOST_KEPT = 20_000
# What a commit lacks so often never comes: the remote itself is damaged there.
MOST_TRIES = 3

# To whom a commit's signature is verified; empty: to nobody.
Signer = Callable[[Objects, str], str]


def nobody(_objects: Objects, _commit: str) -> str:
    """No signature counts."""
    return ""


@dataclass(slots=True, kw_only=True)
class FactFinder:
    """`objects`: a repository of ours that reads those of the code too. What was found is kept: commits don't change.

    Whether a branch contains a commit, and whose signature it is, may change: that is asked anew after `forget`.
    """

    code: CodeCache
    objects: Objects
    signer: Signer = nobody
    _commits: dict[str, CommitFacts] = field(default_factory=dict)
    _changed: dict[Diff, frozenset[str] | None] = field(default_factory=dict)
    _reached: dict[str, bool] = field(default_factory=dict)
    _signers: dict[str, str] = field(default_factory=dict)
    _tries: Counter[str] = field(default_factory=Counter)

    @property
    def facts(self) -> Facts:
        """All that is known."""
        return Facts(commits=self._commits, changed=self._changed, reached=self._reached, signers=self._signers)

    def forget(self) -> None:
        """What may be otherwise by now is asked anew, and what has gathered is let go."""
        self._reached, self._signers = {}, {}
        if len(self._commits) + len(self._changed) + len(self._tries) > MOST_KEPT:
            self._commits, self._changed, self._tries = {}, {}, Counter()

    def look_up(self, wanted: Lookups) -> None:
        """Learn these. Raises Unavailable, Failed."""
        self.code.bring(wanted.commits, (WORKFLOWS,))
        for commit in wanted.commits:
            self._commits[commit] = self._commit(commit)
        for diff in wanted.changed:
            self._changed[diff] = self.code.changed(diff)
        if wanted.reached:
            reached = self.code.reached(wanted.reached)
            self._reached |= {commit: commit in reached for commit in wanted.reached}
        for commit in wanted.signers:
            self._signers[commit] = self.signer(self.objects, commit)

    def may_come(self, commit: str) -> bool:
        """Whether to wait for what a commit lacks, which stands in everybody's way: not for ever."""
        self._tries[commit] += 1
        return self._tries[commit] < MOST_TRIES

    def _commit(self, oid: str) -> CommitFacts:
        try:
            by, message = author_of(self.objects.raw_commit(oid))
        except (Invalid, Damaged) as error:
            return CommitFacts(by="", message="", problem=f"the commit {oid[:12]} can't be read: {error}")
        try:
            found = file_at(self.objects, oid, WORKFLOWS)
        except (Invalid, Unavailable) as error:
            if isinstance(error, Unavailable) and self.may_come(oid):
                raise
            return replace(read_commit(None, by, message), problem=str(error))
        return read_commit(found.data if found else None, by, message)


def file_at(objects: Objects, commit: str, path: str) -> File | None:
    """A file of a commit; None where there is none. Raises Invalid, Unavailable where it isn't here."""
    try:
        return file_of(objects, objects.commit(commit).tree, path)
    except Damaged as error:
        msg = f"{path} of the commit {commit[:12]} did not come from the code remote: {error}"
        raise Unavailable(msg) from error


def author_of(raw: bytes) -> tuple[str, str]:
    """Of a commit's bytes: its committer, as `Name <mail>`, and its message."""
    head, _, message = raw.partition(b"\n\n")
    lines = (line for line in head.split(b"\n") if line.startswith(b"committer "))
    line = next(lines, b"").removeprefix(b"committer ")
    by = line[: line.rfind(b">") + 1]
    return by.decode(errors="replace"), message.decode(errors="replace")
