"""Objects on their way into a folder store: written aside, then moved in place whole, or never seen."""

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from dstack.store import beneath

FOLDER = b".incoming"
LEFTOVER_SECONDS = 86_400.0


class Incoming:
    """One object being written; `keep` moves it in place. Raises OSError."""

    def __init__(self, root: int, aside: int) -> None:
        """`root` and `aside` are the open folders of the store and of what is on its way."""
        self._root = root
        self._aside = aside
        self._name = secrets.token_hex(16).encode()
        self._file = beneath.new_file(aside, self._name, mode=0o666)

    def write(self, data: bytes) -> None:
        """Append."""
        beneath.write_all(self._file, data)

    def keep(self, parts: Sequence[bytes], *, if_absent: bool) -> bool:
        """Make it the object at `parts`, over a power cut too; False where `if_absent` and there is one already."""
        os.fsync(self._file)
        with beneath.folder(self._root, parts[:-1], create=True, durable=True) as target:
            if not self._move(target, parts[-1], if_absent=if_absent):
                return False
            os.fsync(target)
        return True

    def close(self) -> None:
        """Forget what was not kept. What can't be removed now is swept later."""
        os.close(self._file)
        with suppress(OSError):
            os.unlink(self._name, dir_fd=self._aside)

    def _move(self, target: int, name: bytes, *, if_absent: bool) -> bool:
        if not if_absent:
            os.rename(self._name, name, src_dir_fd=self._aside, dst_dir_fd=target)
            return True
        try:
            os.link(self._name, name, src_dir_fd=self._aside, dst_dir_fd=target, follow_symlinks=False)
        except FileExistsError:
            return False
        return True


@contextmanager
def aside(root: int) -> Iterator[int]:
    """The folder where objects are written before they are moved in place, open. No key can name it."""
    with beneath.folder(root, (FOLDER,), create=True) as descriptor:
        yield descriptor


def sweep(aside: int) -> None:
    """Remove what killed writers left more than a day ago. A writer at work keeps its file young by writing."""
    oldest = time.time() - LEFTOVER_SECONDS
    for name in os.listdir(aside):
        with suppress(FileNotFoundError):
            if os.stat(name, dir_fd=aside, follow_symlinks=False).st_mtime < oldest:
                os.unlink(name, dir_fd=aside)
