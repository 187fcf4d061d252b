"""Labels: words that runners carry and jobs ask for."""

LABEL_LENGTH = 63


def label_problem(label: str) -> str:
    """Why this can't be a label; empty where it can."""
    good = label and len(label) <= LABEL_LENGTH and label.isprintable() and label == label.strip()
    return "" if good else f"{label[:LABEL_LENGTH]!r} can't be a label: use 1 to {LABEL_LENGTH} characters of one line"
