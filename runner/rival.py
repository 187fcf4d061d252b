"""Looks at who holds a runner's name: the registration, and if it is another's, the bytes of that one's heartbeat."""

from collections.abc import Callable

from dstack.model import keys
from dstack.model.errors import DstackError, Invalid
from dstack.model.observation import Observation
from dstack.model.pool import Registration
from dstack.store.heartbeats import LIMIT
from dstack.store.store import Store
from runner.registering import Claims


def look(seen: Observation, wanted: Registration, open_store: Callable[[str], Store]) -> Claims:
    """What `registering.judge` wants to know."""
    found = seen.runners.get(wanted.runner)
    if found is None or (found.instance, found.start) == (wanted.instance, wanted.start):
        return Claims(found=found)
    try:
        heartbeat = open_store(found.store).get(keys.runner_heartbeat(found.runner, found.instance), limit=LIMIT)
    except Invalid:
        return Claims(found=found)
    except DstackError:
        return Claims(found=found, readable=False)
    return Claims(found=found, heartbeat=heartbeat)
