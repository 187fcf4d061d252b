"""Runs that triggers start, made ready: what `dstack run --only-committed` would submit of that very commit."""

from dataclasses import dataclass
from datetime import UTC, datetime

from dstack.ledger.codecache import CodeCache
from dstack.ledger.facts import FactFinder
from dstack.ledger.narrowing import contents
from dstack.ledger.objects import Damaged
from dstack.ledger.snapshot import VARIABLES, WORKFLOWS, file_of
from dstack.model.errors import Invalid, Unavailable
from dstack.model.firing import Facts, Fired, Lookups, Tips
from dstack.model.runspec import Code, RunSpec
from dstack.model.variables import parse_variables
from dstack.model.workflow import TagNeed
from dstack.model.workflows import parse_workflows

NOBODY = "somebody whom the commit does not name"

_BRANCH = "refs/heads/"
_NOT_YET = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A run but for its name, time, repository and tags. `needs`: what it depends on among tags.

    `parentless`: see `CreateRun`.
    """

    fired: Fired
    spec: RunSpec
    workflows: bytes
    variables: bytes | None
    needs: tuple[TagNeed, ...] = ()
    parentless: bool = False


class Triggered:
    """What triggers ask of the code remote. For one thread at a time."""

    def __init__(self, code: CodeCache, finder: FactFinder, *, url: str | None, apart: bool) -> None:
        """`url`: where the code is, for people. `apart`: the state remote is another one, and lacks its commits."""
        self._code, self._finder = code, finder
        self._url, self._apart = url, apart
        self._tips = Tips(refs={}, default=None)

    @property
    def facts(self) -> Facts:
        """All that was looked up and still counts."""
        return self._finder.facts

    def look_up(self, wanted: Lookups) -> None:
        """Learn these. Raises Unavailable, Failed."""
        self._finder.look_up(wanted)

    def forget(self) -> None:
        """What may be otherwise by now is to be asked anew."""
        self._finder.forget()

    def tips(self, *, pulls: bool) -> Tips:
        """Where everything is now; the very same value where nothing has moved. Raises Unavailable, Failed."""
        found = self._code.tips(pulls=pulls)
        if found != self._tips:
            self._tips = found
        return self._tips

    def order(self, fired: Fired) -> Order:
        """The run, ready to be made. Raises Invalid where it can't be, Unavailable, Failed."""
        commit = fired.trigger.commit
        self._code.bring([commit], (WORKFLOWS, VARIABLES))
        if self._apart or fired.trigger.pull is not None:
            self._code.bring_whole(commit, alone=self._apart)
        try:
            return self._order(fired)
        except Damaged as error:
            msg = f"the commit {commit[:12]} did not come whole from the code remote: {error}"
            kind = Unavailable if self._finder.may_come(commit) else Invalid
            raise kind(msg) from error

    def _order(self, fired: Fired) -> Order:
        objects, trigger = self._finder.objects, fired.trigger
        tree = objects.commit(trigger.commit).tree
        file, given = file_of(objects, tree, WORKFLOWS), file_of(objects, tree, VARIABLES)
        if file is None:
            msg = f"the commit {trigger.commit[:12]} has no {WORKFLOWS}"
            raise Invalid(msg)
        workflows = parse_workflows(file.data, allow_env=None)
        parse_variables(given.data if given else None, workflows)
        graph = workflows.graph(fired.workflow)
        digests = contents(objects, tree, {one.name: one.include for one in graph}).digests
        branch = trigger.ref.removeprefix(_BRANCH) if trigger.ref.startswith(_BRANCH) else None
        code = Code(
            url=self._url, branch=branch, commit=trigger.commit, snapshot=trigger.commit, contents=dict(digests)
        )
        spec = RunSpec(
            repository="",
            run="",
            workflow=fired.workflow,
            code=code,
            submitted_by=trigger.by or NOBODY,
            submitted_at=_NOT_YET,
            via=trigger.event.via,
            trigger=trigger,
            nonce="",
        )
        return Order(
            fired=fired,
            spec=spec,
            workflows=file.data,
            variables=given.data if given else None,
            needs=tuple(dict.fromkeys(need for workflow in graph for need in workflow.tag_needs)),
            parentless=self._apart,
        )
