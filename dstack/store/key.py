"""The form of keys: what any store can hold, whatever its file system or server makes of odd names."""

import re

from dstack.model.errors import Invalid

MAX_KEY = 512
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=,@+-]{0,199}")


def split_key(key: str) -> tuple[str, ...]:
    """The names a key is made of. Raises Invalid where it is not a key."""
    parts = tuple(key.split("/"))
    if len(key) > MAX_KEY or not all(is_name(part) for part in parts):
        msg = (
            f"{key[:MAX_KEY]!r} is not a key: names of letters, digits and . _ = , @ + - that begin with a letter, "
            f"digit or _, with / between them, at most {MAX_KEY} characters"
        )
        raise Invalid(msg)
    return parts


def split_prefix(prefix: str) -> tuple[str, ...]:
    """The names of a folder of keys, which ends in `/`; none for the whole store (`''`). Raises Invalid."""
    if not prefix:
        return ()
    if not prefix.endswith("/"):
        msg = f"{prefix!r} is not a folder of keys: it must end in /"
        raise Invalid(msg)
    return split_key(prefix[:-1])


def is_name(text: str) -> bool:
    """Whether this can be one part of a key."""
    return _PART.fullmatch(text) is not None
