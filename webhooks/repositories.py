"""The repositories a receiver answers for, by their paths, and who waits for a change of each."""

import asyncio
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dstack.model.hookpath import hook_path
from webhooks.messages import Served


@dataclass(slots=True, eq=False)
class Repository:
    """One, and the number of its last change."""

    served: Served
    number: int = 0
    waiting: set[asyncio.Future[None]] = field(default_factory=set)

    def admits(self, token: bytes) -> bool:
        """Whether it is one of the tokens: compared with each, in constant time."""
        equal = [hmac.compare_digest(one.encode(), token) for one in self.served.tokens]
        return any(equal)

    def let_go(self) -> None:
        """Have all be answered who wait."""
        for waiting in self.waiting:
            if not waiting.done():
                waiting.set_result(None)
        self.waiting.clear()


class Repositories:
    """All of them."""

    def __init__(self) -> None:
        """None yet."""
        self._by_name: dict[str, Repository] = {}
        self._by_path: dict[str, Repository] = {}

    def at(self, path: str) -> Repository | None:
        """The one whose path this is."""
        return self._by_path.get(path)

    @property
    def any_path(self) -> bool:
        """Whether there is any path at all: without a secret or token there is none."""
        return bool(self._by_path)

    @property
    def complete(self) -> bool:
        """Whether all paths are known: those by a repository's id are so when its controller has seen it."""
        return all(one.served.repository for one in self._by_name.values())

    def serve(self, repositories: Iterable[Served]) -> None:
        """Answer for these; who waits for one that stays goes on waiting."""
        by_name = {one.name: Repository(one) for one in repositories}
        for name, repository in by_name.items():
            if before := self._by_name.get(name):
                repository.number, repository.waiting = before.number, before.waiting
        self._by_name = by_name
        self._by_path = {path: one for one in by_name.values() for path in paths(one.served)}

    def changed(self, numbers: Mapping[str, int]) -> None:
        """Let go of all who wait for one of these."""
        for name, number in numbers.items():
            if (repository := self._by_name.get(name)) and repository.number != number:
                repository.number = number
                repository.let_go()

    def let_go(self) -> None:
        """Let go of all who wait: the end."""
        for repository in self._by_name.values():
            repository.let_go()


def paths(served: Served) -> list[str]:
    """All at which it is known: a forge has the path of any of the secrets, a runner only that of a token."""
    names = [name for name in (served.name, served.repository) if name]
    return [hook_path(secret, name) for secret in (*served.secrets, *served.tokens) for name in names]
