"""Submitting: a run's root and its snapshot, made in one atomic push that fails where the name is taken."""

from dataclasses import dataclass

from dstack.ledger import lfs, records, refusals, runs
from dstack.ledger.cache import Cache
from dstack.ledger.gitledger import GitLedger
from dstack.ledger.push import LOCKED, RefUpdate
from dstack.ledger.snapshot import Snapshot
from dstack.model import refs
from dstack.model.errors import Conflict, Failed, Unavailable
from dstack.model.observation import Outcome, Pushed
from dstack.model.refs import RunKey
from dstack.model.runspec import RunSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A run that the remote has."""

    key: RunKey
    root: str


def submit(ledger: GitLedger, snapshot: Snapshot, spec: RunSpec) -> Submitted:
    """Create the run `spec.run`. Raises Conflict where the name is taken, Failed with the way out, Unavailable."""
    cache = ledger.cache
    variables = snapshot.variables.oid if snapshot.variables else None
    files = runs.RootFiles(workflows=snapshot.workflows.oid, variables=variables)
    root = runs.write_root(cache.objects, ledger.text, spec, files, ledger.write)
    lfs.push(snapshot.lfs, cache.url.removeprefix("file://"), cache.context.environment)
    key = RunKey.of(spec.run, root)
    branch = RefUpdate(refs.run_branch(spec.run), None, root)
    _push(cache, branch, RefUpdate(refs.snapshot(key), None, snapshot.commit))
    return Submitted(key=key, root=root)


def create_repository(cache: Cache, repository: str, config: bytes) -> str:
    """Give the remote an id and settings, where it has none. The id it has then: of several who try, one wins."""
    found = cache.poll()
    if refs.ID in found:
        return records.read_id(cache.objects, found[refs.ID])
    updates = [RefUpdate(refs.ID, None, records.write_id(cache.objects, repository))]
    if refs.CONFIG not in found:
        begun = records.write_config(cache.objects, config, None, "Set up dstack")
        updates.append(RefUpdate(refs.CONFIG, None, begun))
    pushed = cache.push(updates, atomic=True)
    if pushed.won:
        return repository
    now = cache.poll()
    if refs.ID not in now:
        raise refusal(pushed, cache.url)
    return records.read_id(cache.objects, now[refs.ID])


def refusal(pushed: Pushed, url: str) -> Failed | Unavailable:
    """Why the remote did not take a push, and what to do."""
    reasons = sorted(pushed.reasons.values(), key=lambda reason: reason.startswith("atomic push failed"))
    reason = next(iter(reasons), "it gives no reason")
    if reason.startswith(LOCKED):
        return Unavailable(f"{url} is busy ({reason}): try again; if that goes on, a crash left that lock: remove it")
    known = refusals.explain(reason, url, "refused the push")
    return known or Failed(f"{url} refused the push ({reason}): ask whoever runs that repository")


def _push(cache: Cache, branch: RefUpdate, snapshot: RefUpdate) -> None:
    try:
        pushed = cache.push([branch, snapshot], atomic=True)
    except Unavailable:
        # The connection may have been lost behind the act: the root is ours alone, so to see it there is to have won.
        if cache.remote_refs([branch.ref]).get(branch.ref) == branch.new:
            return
        raise
    if pushed.won:
        return
    if pushed.outcomes[branch.ref] is Outcome.LOST:
        name = refs.parse_run_branch(branch.ref)
        msg = f"there is a run called {name!r} already: choose another name"
        raise Conflict(msg)
    raise refusal(pushed, cache.url)
