"""Values ↔ text: canonical JSON (sorted keys, no blanks, defaults left out), parsed strictly and size-bounded."""

import functools
import hashlib
import threading
from typing import Any, TypeVar

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
    same = {name: default for name, default in _defaults(type(value)) if getattr(value, name) == default}
    return msgspec.structs.replace(value, **same)


@functools.cache
def _defaults(type_: type[Value]) -> tuple[tuple[str, Any], ...]:
    found = ((field.name, field.default) for field in msgspec.structs.fields(type_))
    return tuple((name, default) for name, default in found if default is not msgspec.NODEFAULT)


def encode(value: object) -> bytes:
    """The canonical JSON of a value."""
    return msgspec.json.encode(value, order="sorted")


# msgspec works out a class at its first use, and crashes the process where two threads do so at once (0.22).
_BUILDING = threading.Lock()
_DECODERS: dict[object, msgspec.json.Decoder[Any]] = {}


def decoder(type_: object) -> msgspec.json.Decoder[Any]:
    """The decoder of a type (or a union of types), made once, by one thread at a time."""
    with _BUILDING:
        if type_ not in _DECODERS:
            _DECODERS[type_] = msgspec.json.Decoder(type_)
        return _DECODERS[type_]


def convert(tree: object, type_: type[T]) -> T:
    """A tree of plain values as a `type_`. Raises as msgspec.convert."""
    decoder(type_)
    return msgspec.convert(tree, type_)


def decode(data: bytes, type_: type[T], what: str, *, limit: int = MAX_JSON) -> T:
    """Parse untrusted JSON into `type_`. Raises Invalid, naming `what`; `limit` is in bytes."""
    if len(data) > limit:
        msg = f"{what} is {len(data)} bytes long; at most {limit} are accepted"
        raise Invalid(msg)
    try:
        found: T = decoder(type_).decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        msg = f"{what} can't be read: {error}"
        raise Invalid(msg) from error
    return found


def blob_id(data: bytes) -> str:
    """The id git gives to a blob of this content (SHA-1 repositories)."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
