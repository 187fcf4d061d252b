"""A code remote in memory as a controller's triggers look at it; what people push there; and the law of it."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from controller.triggering import Triggering
from dstack.ledger.memory import MemoryRemote
from dstack.ledger.triggered import Order
from dstack.model import refs
from dstack.model.errors import Unavailable
from dstack.model.firing import Facts, Fired, Lookups, Tips
from dstack.model.observation import Observation, RunRecord
from dstack.model.runspec import Code, RunSpec
from dstack.model.seen import Seen, path_of
from tests.model_values import moment
from tests.triggers import CodeRemote

ON_PUSH = "workflows: [{name: a, commands: x, on: push}, {name: b, commands: x, on: {push: {branches: [main]}}}]"
WANTED = {"main": ("a", "b")}


@dataclass
class LookedAt:
    """Implements CodeSource. `away`: whether it can't be reached now."""

    remote: CodeRemote
    away: Callable[[], bool] = lambda: False
    facts: Facts = field(default_factory=Facts)

    def tips(self, *, pulls: bool) -> Tips:
        if self.away():
            msg = "the code remote is away"
            raise Unavailable(msg)
        found = self.remote.tips()
        return found if pulls else Tips(refs=_without_pulls(found.refs), default=found.default, bases=found.bases)

    def look_up(self, wanted: Lookups) -> None:
        more, known = self.remote.facts(wanted), self.facts
        self.facts = Facts(
            commits={**known.commits, **more.commits},
            changed={**known.changed, **more.changed},
            reached={**known.reached, **more.reached},
            signers={**known.signers, **more.signers},
        )

    def forget(self) -> None:
        self.facts = Facts(commits=self.facts.commits, changed=self.facts.changed)

    def order(self, fired: Fired) -> Order:
        commit = fired.trigger.commit
        spec = RunSpec(
            repository="",
            run="",
            workflow=fired.workflow,
            code=Code(commit=commit, snapshot=commit),
            submitted_by=fired.trigger.by,
            submitted_at=moment(0).wall,
            via=fired.trigger.event.via,
            trigger=fired.trigger,
            nonce="",
        )
        return Order(
            fired=fired, spec=spec, workflows=(self.remote.commits[commit].workflows or "").encode(), variables=None
        )


def triggering(code: LookedAt, entropy: Callable[[], str], jitter: Callable[[], float] = lambda: 0.5) -> Triggering:
    """Looks within the turn, at each."""
    return Triggering(
        open_code=lambda: code,
        poll=2.0,
        watched=True,
        jitter=jitter,
        entropy=entropy,
        told=lambda: None,
        start=lambda work: work(),
        clock=lambda: 0.0,
    )


Start = tuple[str, str, str]


def begun(remote: MemoryRemote, code: CodeRemote) -> None:
    """The memory as a controller has left it that knows all that is there."""
    marks = {path: oid for ref, oid in code.refs.items() if (path := path_of(ref))}
    oid = remote.new_id()
    remote.refs[refs.SEEN] = (oid, Seen(oid=oid, marks=marks))


def started(remote: MemoryRemote) -> list[RunRecord]:
    """The runs that triggers have made."""
    records = (content for _, content in remote.refs.values() if isinstance(content, RunRecord))
    return [record for record in records if record.spec.trigger]


def start(record: RunRecord) -> Counter[Start]:
    """What started it, if a trigger did."""
    trigger = record.spec.trigger
    return Counter({(record.spec.workflow, trigger.ref, trigger.commit): 1} if trigger else {})


def settled(record: RunRecord, seen: Observation) -> Counter[Start]:
    """Likewise, if somebody has seen it: what is deleted before that comes back."""
    made = seen.seen.made.values() if seen.seen else ()
    unsettled = {key for one in made for key in one.keys}
    trigger = record.spec.trigger
    return start(record) if trigger and trigger.key not in unsettled else Counter()


def broken_laws(remote: MemoryRemote, code: CodeRemote, pushed: set[str], gone: Counter[Start]) -> Iterator[str]:
    """Each workflow that wants it has one run for the tip of each branch that was pushed to, and none has two.

    `gone`: those that were deleted by hand.
    """
    made = Counter(gone)
    for record in started(remote):
        made += start(record)
    for (workflow, ref, commit), times in made.items():
        if times > 1:
            yield f"{workflow} was started {times} times by {ref} at {commit}"
    for branch in sorted(pushed):
        ref = f"refs/heads/{branch}"
        for workflow in WANTED.get(branch, ("a",)):
            if not made[workflow, ref, code.refs[ref]]:
                yield f"{workflow} was never started by {ref} at {code.refs[ref]}"


def _without_pulls(found: dict[str, str] | object) -> dict[str, str]:
    assert isinstance(found, dict)
    return {ref: oid for ref, oid in found.items() if not ref.startswith(("refs/pull/", "refs/merge-requests/"))}
