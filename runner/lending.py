"""Folders of this machine that a job sees at a path of its own: volumes, and caches that outlive it.

In a container they are mounted. For a process there is a symbolic link in its checkout, which nothing of ours follows:
it is no part of a result, and is removed with the checkout.
"""

import posixpath
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from dstack.model.folder_paths import CONTAINER_TREE
from dstack.model.job import Job, Reason
from runner.executor import Lent, StartFailed


def volumes(job: Job, offered: Mapping[str, str], runner: str) -> tuple[Lent, ...]:
    """Those the job asks for. Raises StartFailed."""
    return tuple(
        Lent(here=_offered(volume.name, offered, runner), path=volume.path, read_only=volume.read_only)
        for volume in job.volumes
    )


def put(tree: Path, job: Job, lent: tuple[Lent, ...]) -> None:
    """Make room for them in the checkout, or link them there. Raises StartFailed, OSError."""
    for one in lent:
        inside = place_of(job, one.path)
        if inside is not None:
            _put(tree, inside, one, is_container=job.image is not None)


def place_of(job: Job, path: str) -> str | None:
    """Where that is, from the top of the checkout; None for what is elsewhere in a container. Raises StartFailed."""
    whole = posixpath.normpath(posixpath.join(CONTAINER_TREE, job.working_dir, path))
    top = f"{CONTAINER_TREE}/"
    if whole.startswith(top) and (job.image is not None or not path.startswith("/")):
        return whole.removeprefix(top)
    if job.image is None or not path.startswith("/") or whole in {"/", CONTAINER_TREE}:
        msg = f"{path!r} is not a place in the repository: only a job with an image can have a folder there"
        raise StartFailed(Reason.INVALID, msg)
    return None


def inner(job: Job, path: str) -> str:
    """The same in a container."""
    inside = place_of(job, path)
    return posixpath.normpath(path) if inside is None else f"{CONTAINER_TREE}/{inside}"


def _offered(name: str, offered: Mapping[str, str], runner: str) -> Path:
    if name not in offered:
        msg = f"the runner {runner} offers no volume {name}: `dstack-runner config --volume {name}=FOLDER` there"
        raise StartFailed(Reason.REJECTED, msg)
    here = Path(offered[name])
    if not here.is_dir():
        msg = f"the folder {here} of the volume {name} is not there on the runner {runner}: is it mounted?"
        raise StartFailed(Reason.REJECTED, msg)
    return here


def _put(tree: Path, inside: str, one: Lent, *, is_container: bool) -> None:
    folder = tree
    *above, name = PurePosixPath(inside).parts
    for part in above:
        folder = folder / part
        if not _is_folder(folder, one):
            folder.mkdir()
    place = folder / name
    if _is_folder(place, one):
        if any(place.iterdir()):
            raise _taken(one)
        place.rmdir()
    if is_container:
        place.mkdir()
    else:
        place.symlink_to(one.here, target_is_directory=True)


def _is_folder(path: Path, one: Lent) -> bool:
    """False where nothing is. Raises StartFailed where something else is; no link is followed."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise _taken(one)
    return path.is_dir()


def _taken(one: Lent) -> StartFailed:
    what = "a volume or a folder of `cache-dirs` is to be"
    msg = f"at {one.path!r}, where {what}, the repository or an input has something: name another path"
    return StartFailed(Reason.INVALID, msg)
