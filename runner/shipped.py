"""How much of an attempt's output the store has for certain: noted beside it, and then given back to the disk.

The file keeps its length, so that positions stay true; what was sent becomes a hole in it (fallocate(2)).
"""

import ctypes
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from dstack.model.codec import Value, decode, encode
from dstack.model.errors import Invalid

LOG = logging.getLogger(__name__)

# The beginning stays: there an executor looks for why a container did not start.
KEPT = 4 * 1024 * 1024
# So much is sent before it is noted and given back again.
EVERY = 16 * 1024 * 1024

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_LIMIT = 4 * 1024 * 1024
_LIBC = ctypes.CDLL(None, use_errno=True)
_Count = Annotated[int, Meta(ge=0, le=2**62)]


class Mark(Value, frozen=True, kw_only=True):
    """A place in the file of frames, between two of them: the bytes of output before it, in all and of each stream.

    `tails`: by stream, what was sent last and may be the beginning of a secret, as it came and as it was shown.
    """

    position: _Count = 0
    offset: _Count = 0
    seen: tuple[tuple[_Count, _Count], ...] = ()
    tails: tuple[tuple[_Count, str, str], ...] = ()


def tails_written(tails: Mapping[int, tuple[bytes, bytes]]) -> tuple[tuple[int, str, str], ...]:
    """Bytes as text of one character each."""
    return tuple((stream, raw.decode("latin-1"), shown.decode("latin-1")) for stream, (raw, shown) in tails.items())


def tails_read(mark: Mark) -> Mapping[int, tuple[bytes, bytes]]:
    """Inverse of `tails_written`."""
    return {
        stream: (raw.encode("latin-1", "replace"), shown.encode("latin-1", "replace"))
        for stream, raw, shown in mark.tails
    }


def read_mark(output: Path) -> Mark:
    """How far it was noted; the beginning where it wasn't. Raises OSError."""
    try:
        return decode(_file(output).read_bytes(), Mark, "it", limit=_LIMIT)
    except FileNotFoundError:
        return Mark()
    except Invalid as error:
        LOG.error("%s is damaged, its log is sent from the beginning: %s", _file(output), error)  # noqa: TRY400 (no bug)
        return Mark()


def give_back(output: Path, mark: Mark) -> None:
    """Note that the store has all before `mark`, durably, and let the disk have it. Raises OSError."""
    file = _file(output)
    scratch = file.with_name(f"{file.name}.new")
    with os.fdopen(os.open(scratch, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as writing:
        writing.write(encode(mark))
        writing.flush()
        os.fsync(writing.fileno())
    scratch.replace(file)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    if mark.position > KEPT:
        _punch(output, KEPT, mark.position - KEPT)


def _punch(path: Path, start: int, size: int) -> None:
    with path.open("r+b") as file:
        mode = ctypes.c_int(_PUNCH_HOLE | _KEEP_SIZE)
        if _LIBC.fallocate(file.fileno(), mode, ctypes.c_int64(start), ctypes.c_int64(size)) != 0:
            # A file system that can't do it keeps the bytes until the attempt is removed.
            LOG.debug("%s: what was sent stays on the disk: %s", path, os.strerror(ctypes.get_errno()))


def _file(output: Path) -> Path:
    return output.with_name(f"{output.name}.sent")
