"""Values ↔ text: canonical JSON (sorted keys, no blanks, defaults left out), parsed strictly and size-bounded."""

import hashlib
from typing import TypeVar

import msgspec

from dstack.model.errors import Invalid

T = TypeVar("T")

MAX_JSON = 8 * 1024 * 1024


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of every value that is written to git or the store.

    Fields that equal their default are not written, so a field added later changes no existing id.
    Fields unknown to this version are ignored on reading.
    """


V = TypeVar("V", bound=Value)


def lean(value: V) -> V:
    """The same value, with the default itself wherever a field equals it: msgspec leaves out only that very object."""
    same = {
        field.name: field.default
        for field in msgspec.structs.fields(value)
        if field.default is not msgspec.NODEFAULT and getattr(value, field.name) == field.default
    }
    return msgspec.structs.replace(value, **same)


def encode(value: object) -> bytes:
    """The canonical JSON of a value."""
    return msgspec.json.encode(value, order="sorted")


def decode(data: bytes, type_: type[T], what: str, *, limit: int = MAX_JSON) -> T:
    """Parse untrusted JSON into `type_`. Raises Invalid, naming `what`; `limit` is in bytes."""
    if len(data) > limit:
        msg = f"{what} is {len(data)} bytes long; at most {limit} are accepted"
        raise Invalid(msg)
    try:
        return msgspec.json.decode(data, type=type_)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        msg = f"{what} can't be read: {error}"
        raise Invalid(msg) from error


def blob_id(data: bytes) -> str:
    """The id git gives to a blob of this content (SHA-1 repositories)."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
