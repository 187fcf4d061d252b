"""A turn's changes in independent groups: what must land together, so that one refused ref doesn't hold up the rest."""

from collections.abc import Sequence

from dstack.model.observation import AppendNotes, Change, SetAssignments, SetTag


def independent_groups(changes: Sequence[Change]) -> list[list[Change]]:
    """Changes that touch the same run or the same runner stay together; others are apart."""
    groups: list[tuple[set[str], list[Change]]] = []
    for change in changes:
        touched, members = _touches(change), [change]
        apart: list[tuple[set[str], list[Change]]] = []
        for names, others in groups:
            if names & touched:
                touched |= names
                members = others + members
            else:
                apart.append((names, others))
        groups = [*apart, (touched, members)]
    return [members for _, members in groups]


def _touches(change: Change) -> set[str]:
    if isinstance(change, AppendNotes):
        return {f"run {change.key}"}
    if isinstance(change, SetAssignments):
        return {change.ref} | {f"run {attempt.run}" for attempt in change.attempts.values()}
    if isinstance(change, SetTag):
        return {change.ref, f"run {change.key}"}
    return {change.ref}
