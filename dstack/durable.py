"""A storage for tinydb that survives a power cut: what is written replaces the file whole, synced, or not at all."""

import json
import logging
import os
from pathlib import Path
from typing import Any

LOG = logging.getLogger(__name__)

Tables = dict[str, dict[str, Any]]


class DurableStorage:
    """Fits as a tinydb storage. Writes are kept in memory until `flush`, so that a batch costs one sync."""

    def __init__(self, path: Path) -> None:
        """A file that is torn or foreign is put aside with a warning. `path`'s folder must exist."""
        self._path = path
        self._tables: Tables | None = self._load()
        self._dirty = False

    def read(self) -> Tables | None:
        """All tables; None where there are none yet."""
        return self._tables

    def write(self, data: Tables) -> None:
        """Replace them, as yet in memory."""
        self._tables = data
        self._dirty = True

    def flush(self) -> None:
        """Have what was written survive. Raises OSError; may then be called again."""
        if not self._dirty:
            return
        scratch = self._path.with_name(f"{self._path.name}.new")
        with os.fdopen(os.open(scratch, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
            file.write(json.dumps(self._tables, separators=(",", ":"), sort_keys=True).encode())
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self._path)
        self._dirty = False

    def close(self) -> None:
        """Flush the last of it."""
        self.flush()

    def _load(self) -> Tables | None:
        try:
            return _tables(json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            aside = self._path.with_name(f"{self._path.name}.damaged")
            self._path.replace(aside)
            LOG.warning("%s can't be read (%s): it was put aside as %s", self._path, error, aside.name)
            return None


def _tables(data: object) -> Tables:
    """Raises ValueError where `data` is not as tinydb writes it."""
    if isinstance(data, dict):
        tables = [table for table in data.values() if isinstance(table, dict)]
        rows = [row for table in tables for row in table.items()]
        if len(tables) == len(data) and all(key.isdecimal() and isinstance(row, dict) for key, row in rows):
            return data
    msg = "it holds no tables"
    raise ValueError(msg)
