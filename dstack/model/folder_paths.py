"""Paths in workflows: kept within the repository's folder, compared as what they mean, never looked up."""

from collections.abc import Iterable, Iterator

from dstack.model.errors import Invalid

CONTAINER_TREE = "/workflow"  # where the repository lies in a container


def inner_path(text: str, *, absolute: bool = False) -> str:
    """The path without `.` parts and needless slashes. Raises Invalid where it could leave the folder.

    `absolute`: whether it may start at the root of a container. `.` is the folder itself.
    """
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if text.startswith("/") and not absolute:
        msg = f"{text[:80]!r} is absolute: only with an `image` can it be; write it relative to `working-dir`"
        raise Invalid(msg)
    if ".." in parts or "".join(parts[:1]).startswith("~"):
        msg = f"{text[:80]!r} leaves the folder: write a path below the repository's folder, without `..` or `~`"
        raise Invalid(msg)
    if any(part.lower() == ".git" for part in parts):
        msg = f"{text[:80]!r} is inside `.git`, which is git's own"
        raise Invalid(msg)
    if any(len(part.encode()) > 255 for part in parts) or len(text) > 4000:  # noqa: PLR2004 - Linux: NAME_MAX, PATH_MAX
        msg = f"{text[:80]!r}… is longer than a path can be"
        raise Invalid(msg)
    if text.startswith("/"):
        return "/" + "/".join(parts)
    return "/".join(parts) or "."


def joined(folder: str, path: str) -> str:
    """`path`, which is relative to `folder`, as seen from where `folder` is relative to; both as by `inner_path`."""
    if path.startswith("/") or folder == ".":
        return path
    return folder if path == "." else f"{folder}/{path}"


def is_within(path: str, folder: str) -> bool:
    """Whether `path` is `folder`, or lies in it; both as by `inner_path`."""
    if folder in {".", "/"}:
        return path.startswith("/") is (folder == "/")
    return path == folder or path.startswith(f"{folder}/")


def collisions(owned: Iterable[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    """Pairs of (path, owner) with different owners where one path is the other, or lies inside it."""
    above: list[tuple[tuple[str, ...], str, str]] = []
    for parts, path, owner in sorted((_parts(path), path, owner) for path, owner in owned):
        while above and parts[: len(above[-1][0])] != above[-1][0]:
            above.pop()
        yield from (((outer, other), (path, owner)) for _, outer, other in above if other != owner)
        above.append((parts, path, owner))


def _parts(path: str) -> tuple[str, ...]:
    return ("/" if path.startswith("/") else ".", *(part for part in path.split("/") if part not in {"", "."}))
