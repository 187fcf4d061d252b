"""Keeps the folders of the last few files open: the next one often lies in the same."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from dstack.store import beneath

# Open folders per piece of work: a bound on open files, too.
AT_ONCE = 8


class Parents:
    """Opens the folders in which files lie, as `beneath` does; one thread's. They close with the `with` block."""

    def __init__(self, *, create: bool = False) -> None:
        """`create`: folders that aren't there are made."""
        self._create = create
        self._open: OrderedDict[tuple[Path, tuple[bytes, ...]], int] = OrderedDict()

    def of(self, base: Path, parts: Sequence[bytes]) -> int:
        """The open folder in which `parts` beneath `base` lies; not for long. Raises OSError."""
        key = (base, tuple(parts[:-1]))
        found = self._open.get(key)
        if found is not None:
            self._open.move_to_end(key)
            return found
        with beneath.root(base) as root, beneath.folder(root, key[1], create=self._create) as folder:
            if len(self._open) >= AT_ONCE:
                os.close(self._open.popitem(last=False)[1])
            self._open[key] = descriptor = os.dup(folder)
        return descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
