"""What starts a workflow by itself: its `on`, as values (DESIGN section 11)."""

from dataclasses import dataclass

from dstack.model.patterns import chosen

UTC_ZONE = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """Branches and tags that move. Patterns as in `patterns`; `paths` don't apply to tags."""

    branches: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def wants_branch(self, name: str) -> bool:
        """Whether a push to this branch is meant: with patterns for tags alone, none is."""
        return chosen(self.branches, name) if self.branches else not self.tags

    def wants_tag(self, name: str) -> bool:
        """Whether this tag is meant: without patterns for tags, none is."""
        return bool(self.tags) and chosen(self.tags, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """Pull requests that are opened or get a new head. `branches`: those they are to be merged into."""

    branches: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def wants_base(self, name: str) -> bool:
        """Whether a pull request into this branch is meant."""
        return not self.branches or chosen(self.branches, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A line of standard cron (five fields) in a time zone."""

    cron: str
    zone: str = UTC_ZONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Triggers:
    """The whole `on`. Of several entries of a kind each counts by itself; a workflow starts once all the same."""

    push: tuple[Push, ...] = ()
    pull_request: tuple[PullRequest, ...] = ()
    schedule: tuple[Schedule, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything starts the workflow."""
        return bool(self.push or self.pull_request or self.schedule)
