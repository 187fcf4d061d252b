"""The keys of one mapping of a user's file: which may stand there, and their values, read one by one."""

from collections.abc import Callable, Collection
from typing import TypeVar

from dstack.model import vocabulary
from dstack.model.document import Mapping, Node
from dstack.model.problems import Problems

T = TypeVar("T")
D = TypeVar("D")


class Keys:
    """The keys of one mapping. A wrong value is noted when it is read."""

    def __init__(self, node: Mapping, problems: Problems) -> None:
        """`refuse` is to be called, or unknown keys go unseen."""
        self.node = node
        self.problems = problems
        self._values = {key.text: value for key, value in node.entries}

    def refuse(self, where: str, known: Collection[str]) -> None:
        """Note every key that is not known."""
        for key, _ in self.node.entries:
            if key.text not in known:
                self.problems.add(key.mark, vocabulary.refusal(key.text, where, known))

    def read(self, key: str, read: Callable[[Node], T], default: D) -> T | D:
        """The value of `key` as `read` takes it; `default` where it is absent or wrong."""
        node = self._values.get(key)
        if node is not None:
            with self.problems.noting():
                return read(node)
        return default

    def get(self, key: str, read: Callable[[Node], T]) -> T:
        """The value of a key that is there. Raises Misread where it is wrong."""
        return read(self._values[key])

    def __contains__(self, key: str) -> bool:
        return key in self._values
