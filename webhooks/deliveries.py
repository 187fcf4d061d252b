"""Which deliveries have been seen: a repeat needn't wake anybody again. It saves work; to forget one does no harm."""

import hashlib
import logging
from collections import OrderedDict
from pathlib import Path

import msgspec
from tinydb import TinyDB

from dstack.durable import DurableStorage

LOG = logging.getLogger(__name__)

REMEMBERED = 10_000
# Who sends a delivery again by hand, a while later, means it.
SECONDS = 900.0
TABLE = "deliveries"


class Deliveries:
    """The latest deliveries, by repository, what the forge calls each, and its content. `now`: seconds since 1970."""

    def __init__(self) -> None:
        """None has been seen."""
        self._seen: OrderedDict[str, float] = OrderedDict()
        self.changed = False

    def repeated(self, name: str, identity: str, body: bytes, now: float) -> bool:
        """Whether this one came before, not long ago; remembers it. One without a name is always new."""
        if not identity:
            return False
        key = hashlib.blake2b(f"{name}\n{identity}\n".encode() + body, digest_size=16).hexdigest()
        before = self._seen.get(key)
        if before is not None and abs(now - before) < SECONDS:
            return True
        self._seen[key] = now
        self._seen.move_to_end(key)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        self.changed = True
        return False

    def snapshot(self) -> list[tuple[str, float]]:
        """All that are remembered, oldest first."""
        self.changed = False
        return list(self._seen.items())

    def restore(self, rows: list[tuple[str, float]]) -> None:
        """Go on from what was remembered."""
        self._seen = OrderedDict(rows[-REMEMBERED:])


class DeliveriesFile:
    """Where they outlive the process. Trouble with it is told, and does no harm."""

    def __init__(self, path: Path) -> None:
        """Nothing is read yet."""
        self._path = path

    def load(self) -> list[tuple[str, float]]:
        """What was kept last; nothing where that can't be read."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with TinyDB(self._path, storage=DurableStorage) as kept:
                rows = [row.get("seen") for row in kept.table(TABLE).all()]
                return [row for found in rows for row in msgspec.convert(found, list[tuple[str, float]])]
        except (OSError, msgspec.MsgspecError) as error:
            LOG.warning("the deliveries kept in %s can't be read: %s", self._path, error)
            return []

    def keep(self, rows: list[tuple[str, float]]) -> None:
        """Write them, all at once."""
        try:
            with TinyDB(self._path, storage=DurableStorage) as kept:
                kept.drop_table(TABLE)
                kept.table(TABLE).insert({"seen": rows})
        except OSError as error:
            LOG.warning("deliveries can't be kept in %s: %s", self._path, error)
