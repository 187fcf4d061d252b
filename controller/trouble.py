"""What a daemon has to say about trouble that lasts: once when it comes, not every turn, and once when it is over."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Trouble:
    """The last sentence on each topic, and the problems in records, that were told already."""

    _told: dict[str, str] = field(default_factory=dict)
    _problems: frozenset[str] = frozenset()

    def tell(self, topic: str, sentence: str, *, level: int = logging.WARNING) -> None:
        """Log the sentence where it is news."""
        if self._told.get(topic) != sentence:
            LOG.log(level, "%s", sentence)
        self._told[topic] = sentence

    def over(self, topic: str, sentence: str) -> None:
        """Log the sentence where there was trouble with the topic."""
        if self._told.pop(topic, None) is not None:
            LOG.info("%s", sentence)

    def passed_over(self, problems: Iterable[str]) -> None:
        """Log those problems in what is read that are new."""
        now = frozenset(problems)
        for problem in sorted(now - self._problems):
            LOG.warning("passed over, because it can't be read: %s", problem)
        self._problems = now
