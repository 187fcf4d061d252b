"""`exclude` of a matrix, as a test: whether a combination agrees with one that is left out."""

from collections.abc import Callable, Iterable, Mapping

Values = tuple[str, ...]
Shapes = dict[tuple[int, ...], set[Values]]


def shapes(names: tuple[str, ...], excluded: Iterable[Mapping[str, str]]) -> Shapes:
    """The excluded values, by the places in `names` that they look at."""
    found: Shapes = {}
    for entry in excluded:
        places = tuple(place for place, name in enumerate(names) if name in entry)
        found.setdefault(places, set()).add(tuple(entry[names[place]] for place in places))
    return found


def excluder(names: tuple[str, ...], excluded: Iterable[Mapping[str, str]]) -> Callable[[Values], bool]:
    """For a combination's values in the order of `names`: whether it is left out."""
    tests = tuple(shapes(names, excluded).items())
    return lambda values: any(tuple(values[place] for place in places) in left_out for places, left_out in tests)
