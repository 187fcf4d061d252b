"""Patterns of `on`: globs of branches, tags and paths, where `!` takes back and the last one that matches decides."""

import functools
from collections.abc import Callable, Sequence
from itertools import groupby

from dstack.model import globs

MAX_PATTERNS = 200
NOT = "!"


def pattern_problem(text: str) -> str:
    """Why this can't be a pattern of paths, and what would be right; empty where it can."""
    return globs.glob_problem(text.removeprefix(NOT))


def ref_problem(text: str) -> str:
    """Likewise for branches and tags."""
    name = text.removeprefix(NOT)
    if name.startswith("refs/"):
        return "write the name alone, without `refs/heads/` or `refs/tags/` before it"
    return globs.glob_problem(name)


def only_negative(patterns: Sequence[str]) -> bool:
    """Whether they only take back, so that nothing could ever match."""
    return bool(patterns) and all(pattern.startswith(NOT) for pattern in patterns)


def chosen(patterns: tuple[str, ...], name: str) -> bool:
    """Whether the last pattern that matches this branch or tag, whole, takes it in."""
    return _decider(patterns, whole=True)(name)


def chosen_path(patterns: tuple[str, ...], path: str) -> bool:
    """Whether the last pattern that matches this path, or a folder it is in, takes it in."""
    return _decider(patterns, whole=False)(path)


@functools.lru_cache(maxsize=256)
def _decider(patterns: tuple[str, ...], *, whole: bool) -> Callable[[str], bool]:
    """Neighbours of one sign are one expression: a list costs what its changes of sign cost."""
    signs = groupby(patterns, key=lambda pattern: not pattern.startswith(NOT))
    made = [(taken, globs.matcher([one.removeprefix(NOT) for one in some], whole=whole)) for taken, some in signs]
    steps = tuple(reversed(made))
    return lambda name: next((taken for taken, matches in steps if matches(name)), False)
