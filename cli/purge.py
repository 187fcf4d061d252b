"""`dstack prune RUN --purge`: a finished run leaves the state remote, the archive and the store, wholly and at once."""

from dataclasses import dataclass

from cli.archived import find, open_archive
from cli.freeing import check as check_push
from cli.freeing import push, world_of
from cli.lines import RunLine
from cli.pick import Picked, candidates, pick, readable
from cli.question import confirm
from cli.reading import Reader
from cli.session import Seen
from cli.summaries import load_runs
from cli.tagging import known_tags
from cli.terminal import can_ask, clean, tell
from dstack.ledger.push import RefUpdate
from dstack.model import refs
from dstack.model.errors import Conflict, DstackError, Failed, Invalid
from dstack.model.refs import RunKey
from dstack.store.pruning import Amount, forget
from dstack.store.store import Store

# Somebody may archive runs meanwhile: then it is done again, with what is there then.
_TRIES = 5
SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """The run, and what has left the store with it."""

    run: str
    amount: Amount


def purge(reader: Reader, word: str, *, force: bool, dry_run: bool, yes: bool) -> Purged:
    """Remove it. Raises Invalid, with the way out, where it can't be; Conflict, Unavailable, Failed."""
    seen = reader.session.poll()
    runs = load_runs(reader.session, seen)
    picked = readable(_picked(reader, seen, runs, word), reader.session.remote.name)
    run, key = picked.run, picked.run.key
    if not picked.exact and (yes or not can_ask()):
        msg = f"{word!r} is only the beginning of {run.run!r}: write the whole name, for what is purged is gone"
        raise Invalid(msg)
    tags = _tags(seen, run)
    if tags and not force:
        names = ", ".join(tags)
        msg = f"{run.run} is tagged {names}: `dstack untag {tags[0]}` first, or --force to purge it with its tags"
        raise Invalid(msg)
    if not run.archived:
        _check_ended(reader, seen, run)
    _explain(runs, run, tags)
    if dry_run:
        return Purged(run=str(key), amount=Amount())
    if not yes:
        _ask(run.run)
    store = _store(seen, run)
    if run.archived:
        _leave_archive(reader, key)
        if tags:
            push(reader, [RefUpdate(refs.tag(tag), known_tags(seen)[tag], None) for tag in tags])
    else:
        _leave(reader, seen, key, tags)
    amount = _forgotten(store, key)
    tell(clean(f"{run.run} is gone. Artifacts that nothing else needs leave the store with `dstack prune`."))
    return Purged(run=str(key), amount=amount)


def _picked(reader: Reader, seen: Seen, runs: tuple[RunLine, ...], word: str) -> Picked:
    here = any(candidates(word, runs, jobs=False))
    return pick(word, runs, jobs=False) if here else find(reader.session, seen, runs, word, jobs=False)


def _check_ended(reader: Reader, seen: Seen, run: RunLine) -> None:
    observation = reader.observation(seen, [run.run], pool=True)
    world = world_of(observation, reader.views(observation))
    held = {attempt.run for one in world.assignments.values() for attempt in one.attempts.values()}
    ended = [view for view in world.runs if view.state.finished and view.wanted.generation <= view.state.generation]
    if not ended or str(run.key) in held:
        msg = f"{run.run} has not ended: `dstack stop {run.run}` first (with --abort at once)"
        raise Invalid(msg)


def _explain(runs: tuple[RunLine, ...], run: RunLine, tags: list[str]) -> None:
    """What others will miss."""
    tell(clean(f"{run.run} leaves the state remote, with its code, records, logs{' and tags' if tags else ''}."))
    users = [
        one.run for one in runs if any(job.reused_from and job.reused_from.key == str(run.key) for job in one.jobs)
    ]
    if users:
        more = f" and {len(users) - SHOWN} more" if len(users) > SHOWN else ""
        names = ", ".join(users[:SHOWN])
        tell(clean(f"Its artifacts stay for {names}{more}, which reuse them; the logs of those jobs go."))


def _leave(reader: Reader, seen: Seen, key: RunKey, tags: list[str]) -> None:
    names = [refs.run_branch(key.name), *map(refs.tag, tags)]
    names += [ref for ref in seen.found if (parsed := refs.parse_note(ref)) and parsed[0] == key]
    there = {name: seen.found[name] for name in names}
    there |= reader.session.cache.remote_refs([refs.snapshot(key)])
    push(reader, [RefUpdate(name, oid, None) for name, oid in there.items()])


def _leave_archive(reader: Reader, key: RunKey) -> None:
    for left in reversed(range(_TRIES)):
        try:
            check_push(open_archive(reader.session).remove([key]), reader.session.remote.url)
        except Conflict:
            if not left:
                raise
        else:
            return


def _store(seen: Seen, run: RunLine) -> Store:
    """Where its logs are. Asked before anything is removed: a store that is away leaves the run as it is."""
    store = seen.store(run.store or None)
    next(iter(store.list(f"logs/{run.key}/")), None)
    return store


def _forgotten(store: Store, key: RunKey) -> Amount:
    try:
        return forget(store, str(key))
    except DstackError as error:
        what = f"{key.name} is gone from the state remote, but not all of its logs are"
        msg = f"{what}: remove logs/{key}/ in {store.url} ({error})"
        raise Failed(msg) from error


def _tags(seen: Seen, run: RunLine) -> list[str]:
    return [tag for tag, oid in known_tags(seen).items() if oid == run.root]


def _ask(name: str) -> None:
    if not can_ask():
        msg = f"say --yes to purge {name}: it can't be had back"
        raise Invalid(msg)
    if not confirm(clean(f"Purge {name}? It can't be had back.")):
        msg = "nothing was changed"
        raise Invalid(msg)
