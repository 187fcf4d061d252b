"""Which untracked files travel with a run: not too many, not too large, no credentials, no repository inside."""

import fnmatch
import os
import re
import stat
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from dstack.ledger import git
from dstack.ledger.code import CodeRepository
from dstack.model.errors import Invalid

MIB = 1024 * 1024
WARN_SIZE = MIB
MOST_SIZE = 100 * MIB
MOST_TOTAL = 50 * MIB
MOST_FILES = 1_000

_CREDENTIALS = (
    ".env",
    ".env.*",
    "*.env",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "*.p12",
    "*.pfx",
    "*.ppk",
    "*.kdbx",
    ".netrc",
    "_netrc",
    ".pgpass",
    ".pypirc",
    ".htpasswd",
    ".git-credentials",
)
_EXAMPLES = (".env.example", ".env.sample", ".env.template", ".env.dist", "example.env", "sample.env")
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|PuTTY-User-Key-File-")
_CLOUD_FILES = frozenset({(b".aws", b"credentials"), (b".docker", b"config.json"), (b".kube", b"config")})
_KEY_HEAD = 256
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Files to add, as bytes relative to the root of the work tree, and sentences about what was left out."""

    names: tuple[bytes, ...] = ()
    warnings: tuple[str, ...] = ()


def choose(code: CodeRepository, listed: Sequence[bytes], included: AbstractSet[bytes]) -> Chosen:
    """Of the `listed` files those that may travel, and all `included`. Raises Invalid, naming what must not travel."""
    top = os.fsencode(code.top)
    _refuse_nested([name for name in (*listed, *included) if name.endswith(b"/")])
    sizes = {name: size for name in listed if name not in included and (size := _size(top, name)) is not None}
    secret = [name for name in sizes if _is_credential(top, name)]
    kept = {name: size for name, size in sizes.items() if name not in secret}
    _refuse_large(_without_lfs(code, kept))
    left_out = (f"{shown(name)} looks like credentials and is left out: --include it if it is none" for name in secret)
    return Chosen(names=tuple(sorted({*kept, *included})), warnings=tuple(left_out))


def shown(name: bytes) -> str:
    """A file's name as people can be shown it."""
    return name.decode("utf-8", "backslashreplace").replace("\n", "\\n")


def size_text(size: int) -> str:
    """`1.5 MiB`."""
    return f"{size / MIB:.1f} MiB" if size >= MIB else f"{size / 1024:.0f} KiB"


def _size(top: bytes, name: bytes) -> int | None:
    """Bytes of the file; None where it is gone meanwhile, or is nothing git keeps."""
    try:
        found = os.lstat(top + b"/" + name)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode) else None


def _is_credential(top: bytes, name: bytes) -> bool:
    last = os.fsdecode(name.rpartition(b"/")[2])
    if tuple(name.split(b"/")[-2:]) in _CLOUD_FILES:
        return True
    if any(fnmatch.fnmatchcase(last, pattern) for pattern in _CREDENTIALS):
        return last not in _EXAMPLES
    return _holds_private_key(top + b"/" + name)


def _holds_private_key(path: bytes) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        return bool(_PRIVATE_KEY.search(file.read(_KEY_HEAD)))


def _refuse_nested(names: Sequence[bytes]) -> None:
    if names:
        told = ", ".join(shown(name) for name in names[:_SHOWN])
        msg = (
            f"{told} is a git repository of its own inside this one, and untracked: add it as a submodule, "
            "or name it in .gitignore or .dstackignore"
        )
        raise Invalid(msg)


def _refuse_large(sizes: dict[bytes, int]) -> None:
    """The limits of DESIGN section 4; what the user asked for by name is not among `sizes`."""
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:_SHOWN]
    total = sum(sizes.values())
    if largest and largest[0][1] > MOST_SIZE:
        problem = f"untracked files of more than {size_text(MOST_SIZE)} don't travel with a run"
    elif total > MOST_TOTAL:
        problem = f"the untracked files have {size_text(total)}, and at most {size_text(MOST_TOTAL)} travel with a run"
    elif len(sizes) > MOST_FILES:
        problem = f"there are {len(sizes)} untracked files, and at most {MOST_FILES} travel with a run"
    else:
        return
    told = ", ".join(f"{shown(name)} ({size_text(size)})" for name, size in largest)
    msg = f"{problem}. The largest: {told}. Name them in .gitignore or .dstackignore, commit them, or use --include"
    raise Invalid(msg)


def _without_lfs(code: CodeRepository, sizes: dict[bytes, int]) -> dict[bytes, int]:
    """`sizes` without large files of which only a pointer goes into git."""
    large = [name for name, size in sizes.items() if size > WARN_SIZE]
    if not large:
        return sizes
    text = b"".join(name + b"\0" for name in large)
    fields = git.output(code.context, "check-attr", "-z", "--stdin", "filter", stdin=text).split(b"\0")
    filtered = {name for name, value in zip(fields[::3], fields[2::3], strict=False) if value == b"lfs"}
    return {name: size for name, size in sizes.items() if name not in filtered}
