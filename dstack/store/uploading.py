"""Brings the content of found files into the store: small ones in packs, others by themselves, several at once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import BoundedSemaphore
from typing import TypeVar

from dstack.model import packing
from dstack.store.digests import Digests
from dstack.store.packer import Batch, Member, Where
from dstack.store.parents import Parents
from dstack.store.reading import Content, Reading, digest, opened, read_small
from dstack.store.scanning import Found
from dstack.store.sending import Sender, send_file
from dstack.store.tally import Meter, Tally
from dstack.store.workers import Workers

T = TypeVar("T")

# The store itself sends a larger one in parts, several at once: one such file at a time is enough.
LARGE = 64 * 1024 * 1024
# Up to this size a file is read once, and sent out of memory; so many at once.
WHOLE = 8 * 1024 * 1024
BODIES = 8


@dataclass(slots=True)
class Outcome:
    """By path: where a file's bytes are, or why it isn't in the set."""

    places: dict[bytes, Where] = field(default_factory=dict)
    gone: list[bytes] = field(default_factory=list)
    unread: dict[bytes, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What one save's sending is done with, and into."""

    sender: Sender
    digests: Digests
    tally: Tally
    outcome: Outcome
    room: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(BODIES))

    def send(self, files: Sequence[Found], width: int) -> None:
        """Send all of them, in `width` threads. Raises what the store and who watches raise."""
        alike = self._round(files, width, trusting=True)
        placed = self._placed()
        known = {found.path: placed[content.sha256] for found, content in alike if content.sha256 in placed}
        self.outcome.places.update(known)
        # What they are like has changed since: so read them, too.
        left = [found for found, _ in alike if found.path not in known]
        if left:
            alike = self._round(left, width, trusting=False)
            placed = self._placed()
            self.outcome.places.update({found.path: placed[content.sha256] for found, content in alike})

    def _placed(self) -> dict[str, Where]:
        return {where.content.sha256: where for where in self.outcome.places.values()}

    def _round(self, files: Sequence[Found], width: int, *, trusting: bool) -> list[tuple[Found, Content]]:
        """Those that are like one before are left to be looked up when all threads are done."""
        with Workers(width) as workers:
            self.tally.watch(workers)
            alike = list(self._pack([one for one in files if one.size <= packing.SMALL], workers, trusting=trusting))
            alone = [one for one in files if packing.SMALL < one.size <= LARGE]
            # What is not known takes longest: it goes first.
            for found in sorted(alone, key=lambda one: self._remembered(one) is not None):
                workers.start(partial(self._alone, found))
            for found in (one for one in files if one.size > LARGE):
                self._alone(found)
        return alike

    def _pack(self, files: Sequence[Found], workers: Workers, *, trusting: bool) -> Iterator[tuple[Found, Content]]:
        batch, seen = Batch(), set[str]()
        with Parents() as parents:
            for found in files:
                member = self._member(found, parents, trusting=trusting)
                if member is None:
                    continue
                if member.content.sha256 in seen:
                    self.tally.add(found.size)
                    yield found, member.content
                    continue
                seen.add(member.content.sha256)
                if batch.add(member):
                    workers.start(partial(self._send, batch))
                    batch = Batch()
        if batch.members:
            workers.start(partial(self._send, batch))

    def _member(self, found: Found, parents: Parents, *, trusting: bool) -> Member | None:
        sha256 = self._remembered(found) if trusting else None
        if sha256 is not None:
            return Member(found, Content(sha256, found.size), None)
        read = self._excused(found, lambda: read_small(found, parents))
        if read is None:
            return None
        data, reading = read
        self._learn(found, reading)
        return Member(found, reading.content, data)

    def _send(self, batch: Batch) -> None:
        name, size = batch.name, batch.size
        known = self.digests.pack_of(name)
        if known is None or not self.sender.has(pack := Content(known, size)):
            if not self._read(batch):
                return
            pack, data = batch.join()
            self.digests.learn_pack(batch.name, pack.sha256)
            self.sender.send(pack, data, Meter(self.tally, size))
        else:
            self.tally.add(size)
        for member, where in zip(batch.members, batch.places(pack), strict=True):
            self.outcome.places[member.found.path] = where

    def _read(self, batch: Batch) -> bool:
        """Read what was only remembered; as it is now. False where nothing is left."""
        with Parents() as parents:
            for member in tuple(batch.members):
                if member.data is None and not self._read_one(member, parents):
                    batch.members.remove(member)
        return bool(batch.members)

    def _read_one(self, member: Member, parents: Parents) -> bool:
        read = self._excused(member.found, lambda: read_small(member.found, parents))
        if read is None:
            return False
        member.data, (member.content, _, _) = read
        return True

    def _alone(self, found: Found) -> None:
        sha256 = self._remembered(found)
        if sha256 is not None and self.sender.has(content := Content(sha256, found.size)):
            self.tally.add(found.size)
            self.outcome.places[found.path] = Where(content)
            return
        sent = self._excused(found, lambda: self._read_and_send(found))
        if sent is not None:
            self.outcome.places[found.path] = Where(sent)

    def _read_and_send(self, found: Found) -> Content:
        if found.size <= WHOLE:
            with self.room, Parents() as parents:
                data, reading = read_small(found, parents)
                self._learn(found, reading)
                self.sender.send(reading.content, data, Meter(self.tally, reading.content.size))
                return reading.content
        with Parents() as parents, opened(found, parents) as descriptor:
            reading, source = digest(descriptor, self._check)
            self._learn(found, reading)
            return send_file(self.sender, source, reading.content, Meter(self.tally, reading.content.size))

    def _check(self) -> None:
        self.tally.add(0)

    def _remembered(self, found: Found) -> str | None:
        return None if found.stamp is None else self.digests.find(found.path, found.stamp)

    def _learn(self, found: Found, reading: Reading) -> None:
        if reading.stamp is not None:
            self.digests.learn(found.path, reading.stamp, reading.content.sha256, at=reading.at)

    def _excused(self, found: Found, work: Callable[[], T]) -> T | None:
        """What the work gives. One file that can't be read keeps no other back."""
        try:
            return work()
        except FileNotFoundError:
            self.outcome.gone.append(found.path)
        except OSError as error:
            self.outcome.unread[found.path] = error.strerror or str(error)
        return None
