"""`dstack controller --check`: whether each repository that is to be served can be, and how to mend what can't."""

from collections.abc import Iterator
from dataclasses import replace

from cli.checks import Check, Result, guarded, push_check, store_check
from cli.doctor import report
from cli.fleet_config import Place, Wanted
from cli.remote_session import open_remote
from dstack.model.errors import DstackError
from dstack.model.hookpath import HOOKS, hook_path
from dstack.store import parallel
from webhooks.address import parse_address

AT_ONCE = 8


def check(wanted: Wanted) -> int:
    """Print what was found; the exit code. Raises Invalid where the address to listen at is none."""
    if wanted.http:
        parse_address(wanted.http)
    found: dict[str, tuple[Check, ...]] = {}

    def look(place: Place) -> None:
        checks = (*checks_of(place), *([hook_check(place)] if wanted.http else []))
        found[place.entry.name] = tuple(replace(one, name=place.entry.name) for one in checks)

    parallel.each(wanted.places, look, width=max(1, min(AT_ONCE, len(wanted.places))))
    listed = [one for place in wanted.places for one in found[place.entry.name]]
    return report(listed, as_json=False, wide=max((len(one.name) for one in listed), default=0))


def checks_of(place: Place) -> Iterator[Check]:
    """Of one repository. What can't be looked at because of an earlier one is left out."""
    name = place.entry.name
    try:
        session = open_remote(place.remote, place.code)
        seen = session.poll()
    except DstackError as error:
        yield Check(name=name, result=Result.BAD, text=str(error))
        return
    if seen.repository is None:
        text = f"{place.remote.url} holds no dstack repository yet: it waits for `dstack init` in a clone"
        yield Check(name=name, result=Result.ODD, text=text)
        return
    yield guarded(name, lambda: f"{place.remote.url} can be read")
    yield push_check(session)
    yield store_check(seen)


def hook_check(place: Place) -> Check:
    """Where its webhooks arrive. The path says nothing of the secret that it is made of."""
    name = place.entry.name
    if not place.secrets:
        text = "webhooks are refused: give a `webhook-secret-file`, or DSTACK_WEBHOOK_SECRET in the environment"
        return Check(name=name, result=Result.ODD, text=text)
    path = f"{HOOKS}{hook_path(place.secrets[0], name)}"
    return Check(name=name, result=Result.GOOD, text=f"webhooks arrive at {path}")
