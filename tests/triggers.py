"""A small code remote for the tests of triggers: commits with a file of workflows, refs, and the answers to lookups."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha1

from dstack.model.firing import CommitFacts, Diff, Event, Facts, Firing, Lookups, Tips, fire, read_commit
from dstack.model.seen import Seen, joined
from dstack.model.trust import TriggerRule

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PUSH = "workflows: [{name: test, commands: [x], on: push}]"


def commit_id(text: str) -> str:
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


@dataclass
class Commit:
    workflows: str | None
    message: str
    files: frozenset[str]
    parent: str | None


@dataclass
class CodeRemote:
    """`files` of a commit are what it has beside its parents'; a diff is the symmetric difference of two trees."""

    refs: dict[str, str] = field(default_factory=dict)
    default: str | None = "main"
    bases: dict[int, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    signers: dict[str, str] = field(default_factory=dict)
    asked: list[Lookups] = field(default_factory=list)

    def commit(
        self, name: str, workflows: str | None = PUSH, *, message: str = "", files: str = "", parent: str | None = None
    ) -> str:
        oid = commit_id(name)
        before = self.commits[commit_id(parent)].files if parent else frozenset()
        self.commits[oid] = Commit(
            workflows, message or name, before | set(files.split()), commit_id(parent) if parent else None
        )
        return oid

    def push(self, branch: str, name: str, workflows: str | None = PUSH, **more: str) -> str:
        """Make a commit and move a branch (or, with `refs/`, any ref) to it."""
        ref = branch if branch.startswith("refs/") else f"refs/heads/{branch}"
        self.refs[ref] = self.commit(name, workflows, **more)
        return self.refs[ref]

    def tips(self) -> Tips:
        return Tips(refs=dict(self.refs), default=self.default, bases=dict(self.bases))

    def facts(self, wanted: Lookups) -> Facts:
        return Facts(
            commits={oid: self._facts(oid) for oid in wanted.commits},
            changed={diff: self._diff(diff) for diff in wanted.changed},
            reached={oid: oid in self._reached() for oid in wanted.reached},
            signers={oid: self.signers.get(oid, "") for oid in wanted.signers},
        )

    def look(self, seen: Seen | None, now: datetime = NOW, rules: tuple[TriggerRule, ...] = ()) -> Firing:
        """What fires, after everything that was asked for has been looked up."""
        facts = Facts()
        while True:
            found = fire(seen, self.tips(), facts, now, rules)
            if not found.lookups:
                return found
            self.asked.append(found.lookups)
            more = self.facts(found.lookups)
            facts = Facts(
                commits={**facts.commits, **more.commits},
                changed={**facts.changed, **more.changed},
                reached={**facts.reached, **more.reached},
                signers={**facts.signers, **more.signers},
            )

    def _facts(self, oid: str) -> CommitFacts:
        found = self.commits[oid]
        return read_commit(
            found.workflows.encode() if found.workflows is not None else None, "Ada <ada@example.org>", found.message
        )

    def _diff(self, diff: Diff) -> frozenset[str] | None:
        before = self._merge_base(diff.before, diff.after) if diff.forked else diff.before
        return self.commits[before].files ^ self.commits[diff.after].files if before else None

    def _merge_base(self, one: str, other: str) -> str | None:
        known = set(self._chain(one))
        return next((oid for oid in self._chain(other) if oid in known), None)

    def _chain(self, oid: str | None) -> list[str]:
        found: list[str] = []
        while oid:
            found.append(oid)
            oid = self.commits[oid].parent
        return found

    def _reached(self) -> set[str]:
        return {oid for ref, tip in self.refs.items() if ref.startswith("refs/heads/") for oid in self._chain(tip)}


class Memory:
    """A controller's side: what it has seen, and every run it made, by key."""

    def __init__(self, remote: CodeRemote) -> None:
        self.remote = remote
        self.seen: Seen | None = None
        self.now = NOW
        self.serial = 0

    @property
    def known(self) -> Seen:
        assert self.seen is not None
        return self.seen

    def turn(self, rules: tuple[TriggerRule, ...] = ()) -> tuple[str, ...]:
        """Look, and write everything down: the runs as `workflow event ref`."""
        found = self.remote.look(self.seen, self.now, rules)
        if found.baseline is not None:
            self.seen = Seen(oid=self.next_id(), marks=found.baseline.marks)
        self.write(*found.events)
        return started(*found.events)

    def events(self) -> tuple[Event, ...]:
        return self.remote.look(self.seen, self.now).events

    def write(self, *events: Event) -> None:
        if events:
            assert self.seen is not None
            self.seen = joined(event.move for event in events).applied(self.seen, self.next_id())

    def next_id(self) -> str:
        self.serial += 1
        return commit_id(f"seen {self.serial}")

    def wait(self, **time: float) -> None:
        self.now += timedelta(**time)


def started(*events: Event) -> tuple[str, ...]:
    runs = [run for event in events for run in event.runs]
    return tuple(f"{run.workflow} {run.trigger.event} {run.trigger.ref}" for run in runs)


def begun(**branches: str) -> Memory:
    """A remote with these branches at commits of these names, seen by a controller that has started."""
    remote = CodeRemote()
    for branch, name in branches.items():
        remote.push(branch, name)
    memory = Memory(remote)
    assert memory.turn() == ()
    return memory
