"""The errors a user can meet. Everything else that escapes is our bug (exit code 3)."""


class DstackError(Exception):
    """Base of all errors whose text is written for the user: what, where, and what to do."""


class Invalid(DstackError):
    """The user's file, flag or name is wrong. Says where, and what would be right."""


class Conflict(DstackError):
    """Another writer won the race. Observe again and decide again."""


class Unavailable(DstackError):
    """A remote or store is away for now. Waiting is the remedy."""

    def __init__(self, message: str, *, retry_after: float | None = None, away: bool = False) -> None:
        """`retry_after`: seconds the other side asked us to wait, if it did.

        `away`: nobody answers there, or it has trouble of its own, so that asking again soon disturbs nobody.
        """
        super().__init__(message)
        self.retry_after = retry_after
        self.away = away


class Failed(DstackError):
    """Neither waiting nor retrying helps: a person must act."""
