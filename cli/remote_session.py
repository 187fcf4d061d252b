"""A state remote by its address alone, without a clone: for a controller that serves it from anywhere."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cli.session import Seen, seen_by
from dstack.ledger.cache import Cache
from dstack.ledger.remote import Remote
from dstack.model.errors import Failed
from dstack.personal import state_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSession:
    """`place` is our own folder for this remote, among the user's state; all in it can be thrown away.

    `code`: where the code is.
    """

    remote: Remote
    code: Remote
    place: Path
    cache: Cache

    def poll(self) -> Seen:
        """One fetch, and who the repository is. Raises Unavailable, Failed, Invalid."""
        return seen_by(self.cache)


def open_remote(remote: Remote, code: Remote | None = None) -> RemoteSession:
    """Nothing is fetched yet. `code` where it isn't the same remote. Raises Failed."""
    place = place_of(remote)
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        msg = f"can't create the folder {place} for what is fetched: {error.strerror}"
        raise Failed(msg) from error
    folder = place / "controller"
    cache = Cache(folder, remote.url, context=remote.context(folder))
    return RemoteSession(remote=remote, code=code or remote, place=place, cache=cache)


def place_of(remote: Remote) -> Path:
    """Its own folder among the user's state."""
    return state_folder(os.environ) / "controller" / hashlib.sha256(os.fsencode(remote.url)).hexdigest()[:12]
