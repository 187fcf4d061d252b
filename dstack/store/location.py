"""From a store's URL to the store: the part of it that belongs to one repository, known by its marker object."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dstack.model import keys
from dstack.model.codec import Value, decode, encode
from dstack.model.errors import DstackError, Failed, Invalid
from dstack.model.s3_place import parse_place
from dstack.store.folder import FolderStore
from dstack.store.folder_errors import explained
from dstack.store.key import is_name
from dstack.store.store import Store

VERSION = 1
MARKER_LIMIT = 64 * 1024


class Marker(Value, frozen=True, kw_only=True):
    """`dstack-store.json`: says whose part of a store this is, and how it is laid out."""

    repository: str
    version: int


def open_store(url: str, repository: str, *, create: bool) -> Store:
    """The part of the store at `url` that belongs to the repository with this id; keys are relative to it.

    Raises Invalid where the URL is no store's, Failed where the marker is absent (unless `create`) or another's.
    """
    if not is_name(repository):
        msg = f"{repository!r} is not the id of a dstack repository"
        raise Invalid(msg)
    if urlsplit(check_url(url)).scheme == "s3":
        return _opened_bucket(url, repository, create=create)
    path = folder_of(url) / repository
    store = FolderStore(path, url=url)
    if create:
        with explained(url, repository):
            path.mkdir(parents=True, exist_ok=True)
        _mark(store, repository)
    _check(store, repository, store.get(keys.MARKER, limit=MARKER_LIMIT) if path.is_dir() else None)
    return store


def check_url(url: str) -> str:
    """The URL, where it is a store's. Raises Invalid, with what would be right."""
    if url.startswith("s3:"):
        parse_place(url)
    else:
        folder_of(url)
    return url


def _opened_bucket(url: str, repository: str, *, create: bool) -> Store:
    from dstack.store.s3 import S3Store  # noqa: PLC0415 (its library is heavy)

    store = S3Store(parse_place(url), url=url, within=f"{repository}/")
    data = store.get(keys.MARKER, limit=MARKER_LIMIT)
    if data is None and create:
        _mark(store, repository)
        data = store.get(keys.MARKER, limit=MARKER_LIMIT)
    _check(store, repository, data)
    return store


def default_url(environ: Mapping[str, str]) -> str:
    """The store of who configures none: a folder among the user's own data (XDG base directory specification)."""
    data = Path(environ.get("XDG_DATA_HOME", ""))
    if not data.is_absolute():  # the specification says that it is to be ignored then
        data = Path(environ.get("HOME") or Path.home()) / ".local" / "share"
    return (data / "dstack" / "store").absolute().as_uri()


def folder_of(url: str) -> Path:
    """The folder of a `file:` URL. Raises Invalid, with what would be right."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        msg = f"{url!r} is not a URL: {error}"
        raise Invalid(msg) from error
    path = unquote(parts.path, errors="surrogateescape")
    if parts.scheme != "file":
        hint = Path(url).absolute().as_uri() if not parts.scheme and url and "\0" not in url else "file:///path"
        msg = f"{url!r} is not the URL of a store: say {hint}, or s3://bucket/prefix"
        raise Invalid(msg)
    if parts.netloc or parts.query or parts.fragment or "\0" in path or not path.startswith("/") or path == "/":
        msg = (
            f"{url!r} names no folder of this machine: say file:///path (three slashes; ? and # written as %3F and %23)"
        )
        raise Invalid(msg)
    return Path(path)


def _mark(store: Store, repository: str) -> None:
    store.put(keys.MARKER, encode(Marker(repository=repository, version=VERSION)), if_absent=True)


def _check(store: Store, repository: str, data: bytes | None) -> None:
    if data is None:
        msg = (
            f"the store {store.url} holds nothing of this repository (no {repository}/{keys.MARKER}): if its disk is "
            "not mounted, or it is another machine's folder or another bucket, mend that or change `store` in the "
            f"config; if it is to be a new store, run `dstack init --store {store.url}`"
        )
        raise Failed(msg)
    marker = _parse(data, store.url)
    if marker.repository != repository:
        msg = f"in the store {store.url} the folder {repository} belongs to another repository, {marker.repository}"
        raise Failed(msg)
    if marker.version > VERSION:
        msg = f"the store {store.url} was made by a later version of dstack (layout {marker.version}): upgrade dstack"
        raise Failed(msg)


def _parse(data: bytes, url: str) -> Marker:
    try:
        return decode(data, Marker, keys.MARKER)
    except DstackError as error:
        msg = f"the store {url} is damaged: {error}"
        raise Failed(msg) from error
