"""A snapshot as a folder of its own: a plain git repository with the snapshot checked out, and its history."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dstack.ledger import git, lfs
from dstack.ledger.address import parse_address, without_credentials
from dstack.ledger.cache import Cache
from dstack.ledger.code import CodeRepository
from dstack.ledger.git import Context
from dstack.model.errors import Failed, Invalid

SECONDS = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """`head` is the commit that the snapshot was taken on; None where that did not travel with it.

    `origin` is the address of the code's own remote, if there is one. `pointers` are files that git LFS has elsewhere.
    """

    folder: Path
    branch: str
    head: str | None
    origin: str | None
    submodules: bool
    pointers: int


def check_target(folder: Path) -> None:
    """Raises Invalid where there is anything."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        msg = f"{folder} is there, and no folder: name a new or an empty one"
        raise Invalid(msg)
    if folder.is_dir() and any(folder.iterdir()):
        msg = f"{folder} is not empty: name a new or an empty folder, so that nothing of yours is overwritten"
        raise Invalid(msg)


def check_out(cache: Cache, code: CodeRepository, snapshot: str, branch: str, folder: Path) -> Checkout:
    """Make it of a snapshot that the cache has. It is there as a whole or not at all. Raises Invalid, Failed."""
    check_target(folder)
    commit = cache.objects.commit(snapshot)
    origin = _origin(code)
    with _scratch(folder) as place:
        # LFS would ask a server for each file: the user is told how instead.
        context = Context(folder=place, environment={"GIT_LFS_SKIP_SMUDGE": "1"}, timeout=SECONDS)
        git.output(context, "init", "--quiet", "--template=", f"--initial-branch={branch}")
        options = ("--no-tags", "--no-write-fetch-head", "--update-shallow", "--quiet")
        git.output(context, "-c", "protocol.version=2", "fetch", *options, "--", str(cache.path), snapshot)
        git.output(context, "checkout", "--quiet", "-B", branch, snapshot)
        if origin:
            git.output(context, "remote", "add", "origin", origin)
        try:
            place.replace(folder)
        except OSError as error:
            msg = f"{folder} can't be made: {error.strerror}"
            raise Failed(msg) from error
    return Checkout(
        folder=folder,
        branch=branch,
        head=commit.parents[0] if commit.parents else None,
        origin=origin,
        submodules=b".gitmodules" in cache.objects.tree(commit.tree),
        pointers=sum(1 for _ in lfs.pointers(cache.objects, commit.tree)),
    )


def _origin(code: CodeRepository) -> str | None:
    """As the user's own, without credentials; a path that is relative to their work tree in full."""
    address = code.settings.get("remote.origin.url")
    if not address:
        return None
    if parse_address(address).host is None and "://" not in address:
        return str((code.top / address).resolve())
    return without_credentials(address)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A new folder beside the one that it is to become."""
    place = folder.absolute().parent / f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        place.mkdir(parents=True)
        yield place
    except OSError as error:
        msg = f"{folder} can't be made: {error.strerror}"
        raise Failed(msg) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
