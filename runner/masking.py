"""Hides secrets in output that comes in pieces: every byte of one becomes `*`, so that no offset changes. Pure."""

from collections.abc import Iterable

# A shorter one would be found everywhere, and would tell more by its stars than it hides.
LEAST = 4
_STAR = b"*"
_GLANCE = 32


def needles(secrets: Iterable[str]) -> tuple[bytes, ...]:
    """What to look for: each line of each secret, since programs print keys line by line; not what is too short."""
    lines = {line.strip() for secret in secrets for line in secret.encode(errors="surrogateescape").splitlines()}
    return tuple(sorted((line for line in lines if len(line) >= LEAST), key=lambda line: (-len(line), line)))


class Masker:
    """One stream's. What may be the beginning of a secret is held back until more comes, or `flush`."""

    def __init__(self, wanted: tuple[bytes, ...], before: tuple[bytes, bytes] = (b"", b"")) -> None:
        """`wanted`: what `needles` gave. `before`: the `tail` of one that ended here."""
        self._wanted = wanted
        # Bytes as they came and as they are shown: given out already, but perhaps the beginning of a secret; and held.
        self._given = before
        self._held = (b"", b"")

    @property
    def tail(self) -> tuple[bytes, bytes]:
        """What was given out last and may be the beginning of a secret: as it came, and as it was shown."""
        return self._given

    @property
    def held(self) -> int:
        """How many bytes are held back."""
        return len(self._held[0])

    def feed(self, data: bytes) -> bytes:
        """What can be shown now, of these bytes and of those held before."""
        if not self._wanted:
            return data
        raw = self._given[0] + self._held[0] + data
        shown = bytearray(self._given[1] + self._held[1] + data)
        for needle in self._wanted:
            at = raw.find(needle)
            while at >= 0:
                shown[at : at + len(needle)] = _STAR * len(needle)
                at = raw.find(needle, at + 1)
        given = len(self._given[0])
        end = max(given, len(raw) - self._open(raw))
        self._given = self._kept(raw[:end], shown[:end]) if end == given else (b"", b"")
        self._held = (raw[end:], bytes(shown[end:]))
        return bytes(shown[given:end])

    def flush(self) -> bytes:
        """Show what is held back. If it was a secret's beginning, the rest of it will still be hidden."""
        raw, shown = self._given[0] + self._held[0], self._given[1] + self._held[1]
        told = self._held[1]
        self._given, self._held = self._kept(raw, shown), (b"", b"")
        return told

    def _open(self, raw: bytes) -> int:
        """How many of the last bytes are the beginning of a secret."""
        return max((_begun(raw, needle) for needle in self._wanted), default=0)

    def _kept(self, raw: bytes, shown: bytes | bytearray) -> tuple[bytes, bytes]:
        size = self._open(raw)
        return raw[len(raw) - size :], bytes(shown[len(raw) - size :])


def _begun(raw: bytes, needle: bytes) -> int:
    """How many of the last bytes are the longest beginning of the needle (not all of it)."""
    start = max(0, len(raw) - len(needle) + 1)
    at = raw.find(needle[:1], start)
    while at >= 0:
        # First a few bytes: both may be long.
        if needle.startswith(raw[at : at + _GLANCE]) and needle.startswith(raw[at:]):
            return len(raw) - at
        at = raw.find(needle[:1], at + 1)
    return 0


def hidden(text: str, wanted: tuple[bytes, ...]) -> str:
    """A whole text with the secrets in it hidden."""
    data = text.encode(errors="surrogateescape")
    if not any(needle in data for needle in wanted):
        return text
    masker = Masker(wanted)
    return (masker.feed(data) + masker.flush()).decode(errors="replace")
