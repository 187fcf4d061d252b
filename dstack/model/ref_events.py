"""A branch, a tag or a pull request that is new or has moved → an event, by the `on` of the very commit."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from dstack.model.codec import encode
from dstack.model.patterns import chosen_path
from dstack.model.runspec import Trigger, TriggerEvent
from dstack.model.seen import HEADS, MOST_REFUSALS, TAGS, Move, Seen, Trouble, pull_of
from dstack.model.trigger_facts import Asking, CommitFacts, Diff, Event, Fired, Tips
from dstack.model.triggers import Triggers
from dstack.model.trust import TriggerRule, may_trigger, needs_signer

BRANCHES = "refs/heads/"

_SKIP = re.compile(r"\[(?:skip ci|ci skip|no ci|skip dstack)\]|^skip-checks: *true\s*$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What is to be evaluated: a path of the memory, the ref it stands for, and where that was and is."""

    path: str
    ref: str
    before: str | None
    commit: str

    @property
    def name(self) -> str:
        """Of the branch or tag."""
        return self.path.partition("/")[2]

    @property
    def event(self) -> TriggerEvent:
        """What happened."""
        if self.path.startswith(HEADS):
            return TriggerEvent.PUSH
        return TriggerEvent.TAG if self.path.startswith(TAGS) else TriggerEvent.PULL_REQUEST


@dataclass(frozen=True, slots=True, kw_only=True)
class What:
    """What would start: its path in the memory, the ref whose rules hold, the commit, and the mark (or slot)."""

    path: str
    ref: str
    commit: str
    mark: str
    workflows: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What events are evaluated against."""

    seen: Seen
    tips: Tips
    rules: tuple[TriggerRule, ...] = ()

    def base(self, moved: Moved) -> str | None:
        """The branch that something is new beside: that a pull request goes into, or the default branch."""
        pull = pull_of(moved.path)
        return self.tips.default if pull is None else self.tips.bases.get(pull, self.tips.default)

    def tip(self, branch: str | None) -> str | None:
        """Where a branch is; None where there is none."""
        return self.tips.refs.get(f"{BRANCHES}{branch}") if branch else None


def ref_event(moved: Moved, scene: Scene, asking: Asking) -> Event:
    """What follows from it. Raises Lacking."""
    facts = asking.commit(moved.commit)
    started = () if _SKIP.search(facts.message) else tuple(_started(moved, facts, scene, asking))
    fork = bool(started) and pull_of(moved.path) is not None and not asking.reached(moved.commit)
    what = What(path=moved.path, ref=moved.ref, commit=moved.commit, mark=moved.commit, workflows=started)
    trouble = trouble_of(what, facts, scene, asking)
    runs = () if trouble else tuple(_fired(moved, workflow, facts, scene, fork=fork) for workflow in started)
    troubles = {moved.path: trouble} if trouble or moved.path in scene.seen.troubles else {}
    return Event(
        path=moved.path,
        move=Move(marks={moved.path: moved.commit}, troubles=troubles),
        runs=runs,
        can_wait=not runs and not troubles and moved.before is not None and moved.path not in scene.seen.made,
    )


def trouble_of(what: What, facts: CommitFacts, scene: Scene, asking: Asking) -> Trouble | None:
    """What keeps an event from starting anything: a broken file, the remote's refusals, a rule. Raises Lacking."""
    if facts.problem:
        return Trouble.of(what.mark, facts.problem)
    before = scene.seen.troubles.get(what.path)
    if not what.workflows:
        return None
    if before and before.mark == what.mark and before.refusals >= MOST_REFUSALS:
        return before
    signer = asking.signer(what.commit) if needs_signer(scene.rules, what.ref) else ""
    why = may_trigger(scene.rules, what.ref, facts.by, signer=signer)
    return Trouble.of(what.mark, why, workflows=what.workflows) if why else None


def key_of(workflow: str, event: TriggerEvent, ref: str, mark: str, against: str | None) -> str:
    """The key of a run (DESIGN section 11). `mark`: the commit or slot. `against`: the memory it was evaluated with."""
    return hashlib.sha256(encode([workflow, event, ref, mark, against])).hexdigest()


def _started(moved: Moved, facts: CommitFacts, scene: Scene, asking: Asking) -> Iterator[str]:
    for workflow, on in facts.on.items():
        if any(
            not paths or _touches(paths, moved, scene, asking) for paths in sorted(_paths(moved, on, scene), key=len)
        ):
            yield workflow


def _paths(moved: Moved, on: Triggers, scene: Scene) -> Iterator[tuple[str, ...]]:
    """The patterns of paths of each entry that means this ref; none: any path will do."""
    if moved.event is TriggerEvent.PUSH:
        yield from (one.paths for one in on.push if one.wants_branch(moved.name))
    elif moved.event is TriggerEvent.TAG:
        yield from (() for one in on.push if one.wants_tag(moved.name))
    else:
        base = scene.base(moved)
        yield from (one.paths for one in on.pull_request if base is None or one.wants_base(base))


def _touches(paths: tuple[str, ...], moved: Moved, scene: Scene, asking: Asking) -> bool:
    pull, base = pull_of(moved.path) is not None, scene.base(moved)
    if moved.before is not None and not pull:
        changed = asking.changed(Diff(moved.before, moved.commit))
    else:
        tip = scene.tip(base) if pull or base != moved.name else None
        changed = asking.changed(Diff(tip, moved.commit, forked=True)) if tip else None
    return changed is None or any(chosen_path(paths, path) for path in changed)


def _fired(moved: Moved, workflow: str, facts: CommitFacts, scene: Scene, *, fork: bool) -> Fired:
    trigger = Trigger(
        event=moved.event,
        ref=moved.ref,
        before=moved.before,
        commit=moved.commit,
        key=key_of(workflow, moved.event, moved.ref, moved.commit, scene.seen.against(moved.path)),
        by=facts.by,
        pull=pull_of(moved.path),
        fork=fork,
    )
    return Fired(workflow=workflow, trigger=trigger)
