"""What the controller and its receiver say to each other: one JSON line each, through a socket that only they have."""

from enum import StrEnum

import msgspec

from dstack.model.codec import Value, decoder, encode

# Longer lines are nobody's.
LINE_LIMIT = 16 * 1024 * 1024


class What(StrEnum):
    """What may have changed."""

    CODE = "code"
    STATE = "state"


class Served(Value, frozen=True, kw_only=True):
    """A repository the receiver answers for, at the paths that `dstack.model.hookpath` makes of these.

    `name`: as the configuration calls it, shown in logs and metrics: no credentials in it. `repository`: its id, where
    it is known. `secrets` verify webhooks, `tokens` let runners and users wait and poke; the first is the newest.
    """

    name: str
    secrets: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    repository: str = ""

    def __repr__(self) -> str:
        """Without what nobody may see in a log."""
        return f"Served(name={self.name!r})"


class Standing(Value, frozen=True, kw_only=True):
    """How one repository's controller is doing: counts since its start; `polled`: seconds since the last good poll."""

    name: str
    polled: float | None = None
    turns: int = 0
    pushes: int = 0
    runs: int = 0
    failures: int = 0


class Serve(Value, frozen=True, kw_only=True, tag="serve"):
    """To the receiver, first, and when they change: what it answers for."""

    repositories: tuple[Served, ...]


class Numbers(Value, frozen=True, kw_only=True, tag="numbers"):
    """To the receiver: the number of the last change of some repositories, by name."""

    last: dict[str, int]


class Told(Value, frozen=True, kw_only=True, tag="told"):
    """To the receiver: the answer to `Ask`."""

    standings: tuple[Standing, ...]


class Ready(Value, frozen=True, kw_only=True, tag="ready"):
    """From the receiver: it listens."""


class Woke(Value, frozen=True, kw_only=True, tag="woke"):
    """From the receiver: what of a repository may have changed."""

    name: str
    what: What


class Ask(Value, frozen=True, kw_only=True, tag="ask"):
    """From the receiver: it wants to know how all are doing."""


class Said(Value, frozen=True, kw_only=True, tag="said"):
    """From the receiver: a line for the log; `level` as in `logging`."""

    level: int
    text: str


ToReceiver = Serve | Numbers | Told
FromReceiver = Ready | Woke | Ask | Said


def line(message: ToReceiver | FromReceiver) -> bytes:
    """As it goes through the socket."""
    return encode(message) + b"\n"


def to_receiver(text: bytes) -> ToReceiver:
    """Raises msgspec.MsgspecError."""
    found: ToReceiver = decoder(ToReceiver).decode(text)
    return found


def from_receiver(text: bytes) -> FromReceiver | None:
    """None for a line that is none of ours: a newer receiver's."""
    try:
        found: FromReceiver = decoder(FromReceiver).decode(text)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
    return found
