"""Tells a controller that something was pushed, where the settings name one: it then needn't wait for its poll."""

import os

from cli.session import Seen, Session
from cli.terminal import tell
from dstack import wakeups
from dstack.model.errors import DstackError


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
