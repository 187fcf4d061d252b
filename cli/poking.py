"""Tells a controller that something was pushed, and hears of changes from it, where the settings name one."""

import os
from collections.abc import Callable

from cli.session import Seen, Session
from cli.terminal import tell
from dstack import wakeups
from dstack.ledger.remote import Remote
from dstack.model.errors import DstackError
from dstack.wakeups import Wakeups


def poke(session: Session, seen: Seen) -> None:
    """Takes two seconds at most. Nothing depends on it, so nothing of it fails."""
    url = seen.settings.controller_url
    if url is None or session.remote.path is not None or seen.repository is None:
        return
    try:
        token = wakeups.token_of(os.environ)
    except DstackError as error:
        tell(f"warning: {error}")
        return
    if token:
        wakeups.poke(url, seen.repository, token)


def listening(seen: Seen, remote: Remote, woke: Callable[[], None]) -> Wakeups | None:
    """Have `woke` called, from a thread, when something may have changed; None where nobody could tell us so.

    The files of a remote on this machine tell by themselves. To be stopped. Raises Failed.
    """
    url = seen.settings.controller_url
    if url is None or remote.path is not None or not (token := wakeups.token_of(os.environ)):
        return None
    made = Wakeups(repository=seen.known_repository(), token=token, url=lambda: url, woke=woke)
    made.start()
    return made
