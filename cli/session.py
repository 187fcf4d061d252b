"""What a command works with: the user's repository, the state remote behind a cache of our own, the shared settings."""

import getpass
import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cli.terminal import can_ask
from dstack.ledger import git, records
from dstack.ledger.cache import Cache
from dstack.ledger.code import CodeRepository, find_code
from dstack.ledger.git import Context
from dstack.ledger.objects import Damaged
from dstack.ledger.remote import Remote
from dstack.model import refs
from dstack.model.errors import Failed, Invalid
from dstack.model.personal import overlaid
from dstack.model.s3_place import moved
from dstack.model.settings import Settings, parse_settings, settings_text
from dstack.personal import layers_of
from dstack.store.location import default_url, open_store
from dstack.store.store import Store

# A snapshot may be large, and the way to the remote slow.
PUSH_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """`place` is our own folder for this remote, in the user's git folder; all in it can be thrown away."""

    code: CodeRepository
    remote: Remote
    place: Path
    cache: Cache

    @property
    def me(self) -> str:
        """Who submits: git's author as far as it is set, else the login. Never empty."""
        settings = self.code.settings
        name = os.environ.get("GIT_AUTHOR_NAME") or settings.get("user.name", "")
        email = os.environ.get("GIT_AUTHOR_EMAIL") or settings.get("user.email", "")
        if name and email:
            return f"{name} <{email}>"
        return name or email or f"{_login()}@{platform.node()}"

    def again(self) -> "Session":
        """The same for another thread."""
        cache = Cache(self.cache.path, self.cache.url, borrow=self.cache.borrow, context=self.cache.context)
        return Session(code=self.code, remote=self.remote, place=self.place, cache=cache)

    def poll(self) -> "Seen":
        """One fetch, and who the repository is. Raises Unavailable, Failed, Invalid."""
        return seen_by(self.cache)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One poll: ids by ref. `repository` is None where nobody has set dstack up.

    `settings` are those that hold here, the user's own over the `shared` ones.
    """

    found: Mapping[str, str]
    repository: str | None
    settings: Settings = field(default_factory=Settings)
    shared: Settings = field(default_factory=Settings)

    @property
    def store_url(self) -> str:
        """Where new runs' bytes go."""
        return self.settings.store_url or default_url(os.environ)

    def store(self, url: str | None = None) -> Store:
        """The store at `url` (of a run), or where that has moved, else of the settings. Raises Failed."""
        place = moved(self.settings.stores, url) if url else self.store_url
        return open_store(place, self.known_repository(), create=False)

    def known_repository(self) -> str:
        """The repository's id. Raises Invalid where it has none."""
        if self.repository is None:
            msg = "dstack has not been set up for this repository: run `dstack init` (or `dstack up`, or a workflow)"
            raise Invalid(msg)
        return self.repository


def open_session(folder: Path, code: CodeRepository | None = None) -> Session:
    """Open what is around `folder`, where `code` isn't known already. Raises Invalid, Failed."""
    code = code or find_code(folder)
    remote = code.remote()
    name = hashlib.sha256(os.fsencode(remote.url)).hexdigest()[:12]
    place = code.common / "dstack" / name
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"can't create the folder {place} for what is fetched: {error.strerror}"
        raise Failed(msg) from error
    # At a terminal git and ssh may ask for what they need.
    away = remote.path is None
    timeout = PUSH_SECONDS if away else git.TIMEOUT
    context = Context(folder=place, environment=remote.environment, prompt=away and can_ask(), timeout=timeout)
    cache = Cache(place / "cache", remote.url, borrow=code.objects, context=context)
    return Session(code=code, remote=remote, place=place, cache=cache)


def set_up(session: Session, *, wanted: Settings | None = None) -> Seen:
    """Give the remote an id, and a store for all to use, where it has none; create this machine's own default store."""
    from dstack.ledger.submit import create_repository  # noqa: PLC0415 (only the first command of a repository needs it)

    seen = session.poll()
    if seen.repository is None:
        import secrets  # noqa: PLC0415 (likewise)

        settings, repository = wanted or Settings(store=default_url(os.environ)), secrets.token_hex(16)
        config = settings_text(settings).encode()
        if create_repository(session.cache, repository, config) == repository:
            open_store(settings.store_url or default_url(os.environ), repository, create=True)
        seen = session.poll()
    if seen.settings.store is None:
        open_store(seen.store_url, seen.known_repository(), create=True)
    return seen


def seen_by(cache: Cache) -> Seen:
    """One fetch into the cache, which is made anew where it is damaged. Raises Unavailable, Failed, Invalid."""
    found = cache.poll()
    try:
        return _seen(cache, found)
    except Damaged:
        cache.renew()
        return _seen(cache, cache.poll())


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an id that has no entry in the list of users, as in containers
        return str(os.getuid())


def _seen(cache: Cache, found: Mapping[str, str]) -> Seen:
    objects = cache.objects
    repository = records.read_id(objects, found[refs.ID]) if refs.ID in found else None
    config = records.read_config(objects, found[refs.CONFIG]) if refs.CONFIG in found else None
    shared = parse_settings(config)
    return Seen(found=found, repository=repository, settings=overlaid(shared, layers_of(os.environ)), shared=shared)
