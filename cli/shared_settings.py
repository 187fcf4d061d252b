"""Changes the settings shared by all, on the branch `dstack/config`, by compare-and-swap."""

from collections.abc import Callable

from cli.session import Seen, Session
from dstack.ledger import records
from dstack.ledger.push import RefUpdate
from dstack.ledger.submit import refusal
from dstack.model import refs
from dstack.model.errors import Conflict
from dstack.model.observation import Outcome
from dstack.model.settings import Settings, settings_text

TRIES = 5


def change_settings(session: Session, change: Callable[[Settings], Settings], message: str) -> Seen:
    """Apply the change to the settings as they are now. Raises Conflict, Failed, Unavailable."""
    for _ in range(TRIES):
        seen = session.poll()
        wanted = change(seen.shared)
        if wanted == seen.shared:
            return seen
        base = seen.found.get(refs.CONFIG)
        new = records.write_config(session.cache.objects, settings_text(wanted).encode(), base, message)
        pushed = session.cache.push([RefUpdate(refs.CONFIG, base, new)], atomic=True)
        if pushed.won:
            return session.poll()
        if Outcome.LOST not in pushed.outcomes.values():
            raise refusal(pushed, session.remote.url)
    msg = "others change the branch dstack/config all the time: try again"
    raise Conflict(msg)
