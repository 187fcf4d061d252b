"""Unpacking what a container gives out as a tar archive: untrusted, so nothing may land outside of the target."""

import os
import tarfile
from pathlib import Path, PurePosixPath

from dstack.model.errors import Invalid

READ = 1024 * 1024


def unpack(archive: tarfile.TarFile, target: Path) -> None:
    """Put the archive's only top entry at `target`, which must not exist. Raises Invalid, OSError.

    Links are made when all else is there, so nothing is ever written through one; folders get their modes at the end.
    """
    links: list[tuple[Path, str]] = []
    modes: list[tuple[Path, int]] = []
    for member in archive:
        path = place(member.name, target)
        if member.isdir():
            path.mkdir()
            modes.append((path, member.mode))
        elif member.issym():
            links.append((path, member.linkname))
        elif member.islnk():
            os.link(place(member.linkname, target), path)
        elif member.isreg():
            write(archive, member, path)
    for path, text in links:
        path.symlink_to(text)
    for path, mode in reversed(modes):
        path.chmod(mode & 0o777)


def place(name: str, target: Path) -> Path:
    """Where a member of the archive belongs. Raises Invalid where its name leads elsewhere."""
    first, *rest = PurePosixPath(name).parts
    if first == "/" or ".." in (first, *rest):
        msg = f"an artifact's archive contains the path {name!r}, which leads out of it"
        raise Invalid(msg)
    return target.joinpath(*rest)


def write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    """Write one file with its mode; no device, pipe or link is opened for it."""
    source = archive.extractfile(member)
    if source is None:
        return
    with source, os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600), "wb") as file:
        while data := source.read(READ):
            file.write(data)
    path.chmod(member.mode & 0o777)
