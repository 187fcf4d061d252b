"""Tables: fitted to a terminal by rich, and plain, whole and aligned where a program reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

from cli.terminal import clean, in_colour, is_terminal, say, width

GAP = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """`least`: characters it needs to make sense. Columns of a lower `rank` are left out first on a narrow terminal."""

    title: str
    least: int = 4
    rank: int = 9


Rows = Sequence[Sequence[str]]


def show_table(columns: Sequence[Column], rows: Rows) -> None:
    """Print it. Cells may hold anything; they are cleaned."""
    say(table_text(columns, rows))


def table_text(columns: Sequence[Column], rows: Rows) -> str:
    """What `show_table` prints, with its colours."""
    cells = [[clean(cell) for cell in row] for row in rows]
    return fitted(columns, cells, width()) if is_terminal() else plain(columns, cells)


def plain(columns: Sequence[Column], rows: Rows) -> str:
    """Aligned columns, nothing cut."""
    lines = [[column.title for column in columns], *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join(_joined(line, widths) for line in lines)


def _joined(line: Sequence[str], widths: Sequence[int]) -> str:
    return (" " * GAP).join(cell.ljust(size) for cell, size in zip(line, widths, strict=True)).rstrip()


def fitting(columns: Sequence[Column], rows: Rows, room: int) -> list[int]:
    """The columns to show in `room` characters: those of lowest rank go first; one always stays."""
    kept = [index for index in range(len(columns)) if any(row[index] for row in rows) or columns[index].rank == 9]  # noqa: PLR2004 (the highest)
    while len(kept) > 1 and sum(_least(columns[index], rows, index) + GAP for index in kept) - GAP > room:
        kept.remove(min(kept, key=lambda index: (columns[index].rank, index)))
    return kept


def _least(column: Column, rows: Rows, index: int) -> int:
    longest = max((len(row[index]) for row in rows), default=0)
    return max(len(column.title), min(column.least, longest))


def fitted(columns: Sequence[Column], rows: Rows, room: int) -> str:
    """A table for a terminal of `room` characters: the last column is broken into lines, others are cut."""
    from rich.console import Console  # noqa: PLC0415 (37 ms that a pipe doesn't need)
    from rich.table import Table  # noqa: PLC0415 (likewise)
    from rich.text import Text  # noqa: PLC0415 (likewise)

    kept = fitting(columns, rows, room)
    widths = spread(columns, rows, kept, room)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for index, size in zip(kept, widths, strict=True):
        table.add_column(columns[index].title, width=size, overflow="ellipsis", no_wrap=index != kept[-1])
    for row in rows:
        table.add_row(*(Text(row[index], style=_style(row[index])) for index in kept))
    console = Console(color_system="auto" if in_colour() else None, highlight=False, width=room)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip("\n")


def spread(columns: Sequence[Column], rows: Rows, kept: Sequence[int], room: int) -> list[int]:
    """How wide each column is: what it needs to make sense, then, from the left, all it can use."""
    widths = [_least(columns[index], rows, index) for index in kept]
    spare = room - sum(widths) - GAP * (len(kept) - 1)
    for place, index in enumerate(kept):
        wanted = max([len(columns[index].title), *(len(row[index]) for row in rows)])
        more = max(0, min(spare, wanted - widths[place]))
        widths[place] += more
        spare -= more
    return [min(size, room) for size in widths]


_STYLES = {
    "DONE": "green",
    "FAILED": "red",
    "ABORTED": "red",
    "BROKEN": "red",
    "STOPPED": "yellow",
    "SKIPPED": "yellow",
    "RUNNING": "cyan",
}


def _style(cell: str) -> str:
    return _STYLES.get(cell.partition(" ")[0].rstrip(":"), "")
