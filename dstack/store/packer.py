"""Puts the small files of a set together into packs, in the order of their paths."""

import hashlib
from dataclasses import dataclass, field

import msgspec

from dstack.model import packing
from dstack.model.manifest import Pack
from dstack.store.reading import Content
from dstack.store.scanning import Found


class Where(msgspec.Struct, frozen=True, gc=False):
    """The bytes of a file in the store: the object of its digest, or those from `offset` on in a pack."""

    content: Content
    pack: Pack | None = None
    offset: int = 0


class Member(msgspec.Struct, gc=False):
    """A file on its way into a pack. `data` is None where its digest was remembered and it need not be read yet."""

    found: Found
    content: Content
    data: bytes | None


@dataclass(slots=True)
class Batch:
    """The members of one pack."""

    members: list[Member] = field(default_factory=list)
    weight: int = 0

    def add(self, member: Member) -> bool:
        """Whether the pack ends with it."""
        self.members.append(member)
        size = member.content.size
        self.weight += packing.weight(size)
        return packing.ends(self.weight, member.content.sha256, size)

    @property
    def name(self) -> str:
        """What the pack is remembered by: the digest of its members' digests."""
        return hashlib.sha256("".join(one.content.sha256 for one in self.members).encode()).hexdigest()

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(one.content.size for one in self.members)

    def join(self) -> tuple[Content, bytes]:
        """The pack. All members have been read; their data are let go of."""
        data = b"".join(one.data or b"" for one in self.members)
        for one in self.members:
            one.data = None
        return Content(hashlib.sha256(data).hexdigest(), len(data)), data

    def places(self, pack: Content) -> list[Where]:
        """Where the members are, in this pack. A pack of one file is that file."""
        if len(self.members) == 1:
            return [Where(self.members[0].content)]
        places, offset = list[Where](), 0
        for one in self.members:
            places.append(Where(one.content, Pack(sha256=pack.sha256, size=pack.size), offset))
            offset += one.content.size
        return places
