"""The paths of artifacts: as declared, as written in a manifest, and as names to walk along. Pure."""

from collections.abc import Iterable

from dstack.model.errors import Invalid
from dstack.model.manifest import Entry

HERE = "."


def resolve(working_dir: str, declared: str) -> str:
    """A declared path as manifests write it: from the repository's root (`.` is the root itself), or absolute.

    Raises Invalid where it leaves the repository's folder, or is `/` itself.
    """
    if "\0" in declared or not declared:
        msg = f"{declared!r} can't be the path of an artifact"
        raise Invalid(msg)
    absolute = declared.startswith("/")
    parts: list[str] = []
    for part in declared.split("/") if absolute else [*working_dir.split("/"), *declared.split("/")]:
        if part == "..":
            if not parts:
                msg = f"the artifact {declared!r} leaves the repository's folder: only what lies within can be saved"
                raise Invalid(msg)
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    if absolute and not parts:
        msg = "the artifact '/' would be the whole machine: name a folder"
        raise Invalid(msg)
    return ("/" if absolute else "") + "/".join(parts) or HERE


def names(path: bytes) -> tuple[bytes, ...]:
    """The names to walk along, without the leading `/` of an absolute path. Raises Invalid where one is odd."""
    if path == HERE.encode():
        return ()
    parts = tuple(path.removeprefix(b"/").split(b"/"))
    if any(part in (b"", b".", b"..") or b"\0" in part for part in parts):
        msg = f"the manifest holds a path that leaves its folder or is none: {show(path)}"
        raise Invalid(msg)
    return parts


def exact(text: str, raw: bytes | None) -> bytes:
    """The bytes that a manifest's path or target stands for. Raises Invalid."""
    try:
        return text.encode() if raw is None else raw
    except UnicodeEncodeError as error:
        msg = f"the manifest holds a path that is no text: {text!a}"
        raise Invalid(msg) from error


def path_of(entry: Entry) -> bytes:
    """The exact path of an entry."""
    return exact(entry.path, entry.raw)


def written(data: bytes) -> tuple[str, bytes | None]:
    """The inverse of `exact`: a text to show, and the raw bytes where they are not UTF-8."""
    try:
        return data.decode(), None
    except UnicodeDecodeError:
        return data.decode(errors="replace"), data


def artifact_of(path: bytes, artifacts: Iterable[str]) -> str | None:
    """The declared path that `path` belongs to (the longest, where several hold it), or None."""
    holding = [artifact for artifact in artifacts if within(path, artifact.encode())]
    return max(holding, key=len, default=None)


def within(path: bytes, artifact: bytes) -> bool:
    """Whether `path` is the artifact or lies in it."""
    if artifact == HERE.encode():
        return not path.startswith(b"/")
    return path == artifact or path.startswith(artifact + b"/")


def outermost(artifacts: Iterable[str]) -> tuple[str, ...]:
    """The paths that lie in no other of them, in order, each once."""
    unique = tuple(dict.fromkeys(artifacts))
    return tuple(
        path for path in unique if not any(other != path and within(path.encode(), other.encode()) for other in unique)
    )


def as_folder_name(text: str) -> bytes:
    """One name of a folder for any text: what can't stand in a name is written %XX. Raises Invalid for none."""
    name = text.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    if name in ("", ".", ".."):
        msg = f"{text!r} can't be the name of a folder"
        raise Invalid(msg)
    return name.encode()


def show(path: bytes) -> str:
    """For messages."""
    return repr(path.decode(errors="backslashreplace"))
