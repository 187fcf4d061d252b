"""Times and sizes in words."""

from datetime import datetime

MINUTE, HOUR, DAY = 60, 3600, 86400
_UNITS = ((DAY * 365, "year"), (DAY * 30, "month"), (DAY * 7, "week"), (DAY, "day"), (HOUR, "hour"), (MINUTE, "min"))
KIB = 1024
_POWERS = ("B", "kB", "MB", "GB", "TB")
_SIZES = ("KiB", "MiB", "GiB", "TiB")


def ago(then: datetime | None, now: datetime) -> str:
    """`now`, `12 sec ago`, `3 mins ago`, …; empty for no time. What another clock puts ahead of us is now, too."""
    if then is None:
        return ""
    seconds = int((now - then).total_seconds())
    if seconds < 1:
        return "now"
    for length, unit in _UNITS:
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return f"{seconds} sec ago"


def share_text(done: int, total: int) -> str:
    """`120/500 MB`, `0.4/1.2 GB`: powers of 1000."""
    done = max(0, min(done, total))
    power = min((len(str(total)) - 1) // 3, len(_POWERS) - 1)
    digits = 1 if power and total < 10 * 1000**power else 0
    return f"{done / 1000**power:.{digits}f}/{total / 1000**power:.{digits}f} {_POWERS[power]}"


def size_text(size: int) -> str:
    """`512 B`, `1.5 MiB`."""
    if size < KIB:
        return f"{size} B"
    power = min((size.bit_length() - 1) // 10, len(_SIZES))
    return f"{size / KIB**power:.1f} {_SIZES[power - 1]}"
