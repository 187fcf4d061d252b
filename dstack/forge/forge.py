"""A forge as the rest of dstack needs it, and the values that go to and fro."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dstack.forge.place import Place
from dstack.model.reports import CommitStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """A status in the forge's own words, to be compared with what stands there."""

    state: str
    description: str
    link: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """A comment on a pull request. `author` is the forge's name for who wrote it; `bot`: no person did."""

    id: int
    author: str
    bot: bool
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A webhook: where deliveries go, and the secret that they are signed with (never told by a forge)."""

    url: str
    secret: str = field(default="", repr=False)


class Forge(Protocol):
    """One project on a forge.

    Everything raises Unavailable where the forge is away or asks for patience, Denied where the token isn't enough,
    and Failed where this one request can't succeed.
    """

    @property
    def place(self) -> Place:
        """Where it is."""
        ...

    def close(self) -> None:
        """Let go of its connections."""
        ...

    def check(self) -> str:
        """A sentence on what the token may do."""
        ...

    def me(self) -> str | None:
        """Who the token belongs to, as `Comment.author` names them; None where the forge won't say."""
        ...

    def statuses(self, commit: str) -> Mapping[str, Posted]:
        """The latest of each context, as far as they stand on the first pages."""
        ...

    def as_posted(self, status: CommitStatus) -> Posted:
        """How it would stand there."""
        ...

    def post(self, status: CommitStatus) -> None:
        """Give the commit this status."""
        ...

    def comments(self, pull: int) -> tuple[Comment, ...]:
        """The oldest first, as far as they stand on the first pages."""
        ...

    def add_comment(self, pull: int, body: str) -> Comment:
        """Write one."""
        ...

    def change_comment(self, pull: int, comment: int, body: str) -> None:
        """Write it anew."""
        ...

    def remove_comment(self, pull: int, comment: int) -> None:
        """Take it away; it may be gone already."""
        ...

    def bases(self) -> Mapping[int, str]:
        """The branch that each open pull request is to be merged into, by number; of very many the newest."""
        ...

    def hooks(self) -> Mapping[int, str]:
        """The URLs of the project's webhooks, by id."""
        ...

    def add_hook(self, hook: Hook) -> None:
        """Have the events that dstack wants delivered there."""
        ...

    def change_hook(self, number: int, hook: Hook) -> None:
        """Likewise, with a hook that exists."""
        ...
