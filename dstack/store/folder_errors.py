"""What the system says of the store's folder, in words for people: what is wrong there and what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from dstack.model.errors import DstackError, Failed, Invalid, Unavailable

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_IN_THE_WAY = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST})


@contextmanager
def explained(url: str, key: str) -> Iterator[None]:
    """Translate an OSError of the store at `url` while it deals with `key`."""
    try:
        yield
    except OSError as error:
        raise _explain(error, url, key) from error


def _explain(error: OSError, url: str, key: str) -> DstackError:
    what = error.strerror or str(error)
    if error.errno in _FULL:
        return Failed(
            f"the store {url} is full ({what}): free space there, or move it and change `store` in the config"
        )
    if error.errno in _FORBIDDEN:
        return Failed(f"the store {url} refuses {key} ({what}): give this user the right to read and write there")
    if error.errno in _IN_THE_WAY:
        return Failed(f"in the store {url} a link, file or folder stands in the way of {key} ({what}): remove it")
    if error.errno == errno.ENAMETOOLONG:
        return Invalid(f"the store {url} can't hold {key}: {what}")
    return Unavailable(f"the store {url} is away ({what}): is its folder there, is its disk mounted?", away=True)
