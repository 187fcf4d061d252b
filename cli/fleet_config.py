"""What `dstack controller` is to serve, as its file or its options say: read, and checked against this machine."""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from controller.configuration import Configuration, Entry, entries_of, parse_configuration
from dstack.ledger.address import parse_address
from dstack.ledger.remote import Remote, find_remote
from dstack.model.bucket import Reach
from dstack.model.document import MAX_DOCUMENT
from dstack.model.errors import Failed, Invalid

SECRET_LIMIT = 64 * 1024
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One repository to serve: its remotes found, its secrets read."""

    entry: Entry
    remote: Remote
    code: Remote
    secrets: tuple[str, ...] = field(default=(), repr=False)
    tokens: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """All that is to be served; `http`: where is listened."""

    places: tuple[Place, ...]
    http: str | None = None


class Source(Protocol):
    """Where it stands what is to be served."""

    def read(self) -> Wanted:
        """As it is now. Raises Invalid, Failed."""
        ...

    def marks(self) -> object:
        """Changes when the files that it was read from do."""
        ...


@dataclass(slots=True, kw_only=True)
class Options:
    """The options of the command line."""

    urls: tuple[str, ...]
    base: Path
    http: str | None = None
    poll: float | None = None

    def read(self) -> Wanted:
        """See Source."""
        found = Configuration(repositories=entries_of(self.urls), http=self.http)
        return _wanted(found, self.base, self.poll)

    def marks(self) -> object:
        """Always the same."""
        return None


@dataclass(slots=True, kw_only=True)
class File:
    """A `controller.yaml`. `http` and `poll` are what holds where it says nothing else."""

    path: Path
    http: str | None = None
    poll: float | None = None
    _read: tuple[Path, ...] = ()

    def read(self) -> Wanted:
        """See Source."""
        text, private = _text(self.path)
        found = parse_configuration(text, str(self.path), private=private)
        self._read = tuple(dict.fromkeys(_secret_files(found.repositories, self.path.parent)))
        wanted = _wanted(found, self.path.parent, self.poll)
        return Wanted(places=wanted.places, http=wanted.http or self.http)

    def marks(self) -> object:
        """By what tells one state of a file from another, also where links are changed."""
        return tuple(_mark(path) for path in (self.path, *self._read))


def read_secrets(path: Path) -> tuple[str, ...]:
    """The secrets in a file that only its owner may read: one a line, or separated by commas. Raises Failed."""
    text, private = _text(path, SECRET_LIMIT)
    if not private:
        msg = f"others can read the secrets in {path}: `chmod 600 {path}`, and change those that may have been seen"
        raise Failed(msg)
    return secrets_in(text.decode(errors="replace"))


def lent_secrets(variable: str) -> tuple[str, ...]:
    """From the environment, or from the file that its variable of that name with `_FILE` names. Raises Failed."""
    file = os.environ.get(f"{variable}_FILE")
    return secrets_in(os.environ.get(variable, "")) or (read_secrets(Path(file).expanduser()) if file else ())


def secrets_in(text: str) -> tuple[str, ...]:
    """Secrets one a line, or separated by commas: the newest first."""
    return tuple(word for line in text.splitlines() for part in line.split(",") if (word := part.strip()))


def _wanted(found: Configuration, base: Path, poll: float | None) -> Wanted:
    places = tuple(_place(entry, base, poll) for entry in found.repositories)
    _check_twice(places)
    return Wanted(places=places, http=found.http)


def _place(entry: Entry, base: Path, poll: float | None) -> Place:
    remote = _remote(entry.url, base)
    return Place(
        entry=entry if entry.poll is not None else replace(entry, poll=poll),
        remote=remote,
        code=_remote(entry.code, base) if entry.code else remote,
        secrets=_secrets(entry.secret_file, "DSTACK_WEBHOOK_SECRET", base),
        tokens=_secrets(entry.token_file, "DSTACK_CONTROLLER_TOKEN", base),
    )


def _remote(url: str, base: Path) -> Remote:
    """At a URL or a path; a folder that isn't there may come."""
    address = parse_address(url)
    here = address.host is None and "://" not in url
    return find_remote(str(base / Path(url).expanduser()) if here else url, base)


def _secrets(file: str | None, variable: str, base: Path) -> tuple[str, ...]:
    return read_secrets(base / Path(file).expanduser()) if file else lent_secrets(variable)


def _check_twice(places: Iterable[Place]) -> None:
    """Raises Invalid where two entries are one remote, however it is written."""
    names: dict[str, str] = {}
    for place in places:
        key = _plain(place.remote)
        if key in names:
            msg = f"{names[key]} and {place.entry.name} are the same remote, {place.remote.url}: leave one out"
            raise Invalid(msg)
        names[key] = place.entry.name


def _plain(remote: Remote) -> str:
    """What is alike for two spellings of one remote's address. At a forge every way leads to the same repository."""
    if remote.path:
        return remote.url
    scheme, mark, rest = remote.url.partition("://")
    authority, _, path = rest.partition("/") if mark else remote.url.partition(":")
    # `host:path` is meant from the home folder there, `host:/path` and `ssh://host/path` are not.
    place = path.lstrip("/") if mark or path.startswith("/") or remote.reach is Reach.FORGE else f"~/{path}"
    door = "" if remote.reach is Reach.FORGE else scheme if mark else "ssh"
    return f"{door}://{authority.rpartition('@')[2].lower()}/{place.rstrip('/').removesuffix('.git')}"


def _secret_files(entries: Iterable[Entry], base: Path) -> Iterator[Path]:
    for entry in entries:
        for file in (entry.secret_file, entry.token_file):
            if file:
                yield base / Path(file).expanduser()


def _text(path: Path, limit: int = MAX_DOCUMENT) -> tuple[bytes, bool]:
    """What is in a file, and whether only its owner may read it. Raises Failed, Invalid."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(limit + 1)
    except OSError as error:
        msg = f"{path} can't be read: {error.strerror}"
        raise Failed(msg) from error
    if len(data) > limit:
        msg = f"{path} is too long: at most {limit} bytes are accepted"
        raise Invalid(msg)
    return data, not mode & _OTHERS


def _mark(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode
