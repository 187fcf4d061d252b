"""What a push asks for, and what git's `--porcelain` answer says of each ref. Pure: knows git's words, runs nothing."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from dstack.model.observation import Outcome

# Told apart from a rule that refuses for good: the next try may find the lock gone.
LOCKED = "locked: "

_WON = frozenset("*+- ")
_LOST = frozenset({"stale info", "fetch first", "non-fast-forward", "already exists", "needs force"})
# What receive-pack says when its own compare-and-swap failed, be it by a race or by a lock file
# (git/builtin/receive-pack.c, `update` and `execute_commands_atomic`).
_CONTENDED = (
    "failed to update ref",
    "atomic transaction failed",
    "transaction failed to start",
    "cannot lock ref",
    "incorrect old value",
    "reference already exists",
    "unable to lock",
)


class RefUpdate(NamedTuple):
    """Move `ref` from `old` to `new` (full ids). `old` None: it must not exist; `new` None: remove it."""

    ref: str
    old: str | None
    new: str | None

    @property
    def lease(self) -> str:
        """The option that makes this a compare-and-swap."""
        return f"--force-with-lease={self.ref}:{self.old or ''}"

    @property
    def refspec(self) -> str:
        """What to push."""
        return f"{self.new or ''}:{self.ref}"


class Line(NamedTuple):
    """One ref's line: git's flag, its summary in brackets, and the reason in parentheses."""

    flag: str
    summary: str
    reason: str


def parse_porcelain(out: bytes) -> dict[str, Line]:
    """The answer by ref. Format: git-push(1), OUTPUT: `<flag> TAB <from>:<to> TAB <summary> (<reason>)`."""
    lines: dict[str, Line] = {}
    for text in out.decode(errors="replace").splitlines():
        flag, tab, rest = text.partition("\t")
        refspec, second_tab, told = rest.partition("\t")
        if not tab or not second_tab or len(flag) != 1:
            continue
        summary, _, reason = told.partition("] (")
        lines[refspec.rpartition(":")[2]] = Line(flag, summary.strip("[]"), reason.removesuffix(")"))
    return lines


def unknown(lines: Mapping[str, Line], updates: Iterable[RefUpdate]) -> list[str]:
    """The refs whose fate the answer doesn't tell."""
    return [update.ref for update in updates if _is_unknown(lines.get(update.ref))]


def outcome(line: Line) -> Outcome:
    """What became of the ref. An up-to-date ref (`=`) ignored its lease, so it counts as lost (DESIGN section 8)."""
    if line.flag in _WON:
        return Outcome.WON
    if line.flag == "=" or (line.summary == "rejected" and line.reason in _LOST):
        return Outcome.LOST
    return Outcome.REFUSED


def contended(lines: Mapping[str, Line]) -> list[str]:
    """The refs that the remote refused in words that leave open whether a race or a lock was the cause."""
    return [
        ref
        for ref, line in lines.items()
        if line.summary == "remote rejected" and any(word in line.reason for word in _CONTENDED)
    ]


def reason(line: Line, err: bytes) -> str:
    """Why the ref was not won, for people."""
    if line.flag == "=":
        return "the remote already had exactly this"
    if line.summary == "remote rejected" and any(word in line.reason for word in _CONTENDED):
        return _locked(err) or line.reason
    return _told_by_hook(line, err) or line.reason or line.summary


def batches(updates: Sequence[RefUpdate], size: int) -> list[Sequence[RefUpdate]]:
    """`updates` in pieces of at most `size`."""
    return [updates[at : at + size] for at in range(0, len(updates), size)]


def _is_unknown(line: Line | None) -> bool:
    return line is None or line.summary == "remote failure"


def _locked(err: bytes) -> str:
    """What the remote says of the ref it could not lock; marked where it was another's lock file."""
    for text in err.decode(errors="replace").splitlines():
        told = text.removeprefix("remote: ").removeprefix("error: ").strip()
        if ".lock': File exists" in told:
            return LOCKED + told
        if told.startswith("cannot lock ref"):
            return told
    return ""


def _told_by_hook(line: Line, err: bytes) -> str:
    """What a hook or the unpacker of the remote printed, behind git's own bare reason."""
    if line.summary != "remote rejected":
        return ""
    told = [text.removeprefix("remote: ").strip() for text in err.decode(errors="replace").splitlines()]
    said = [text for text, whole in zip(told, err.decode(errors="replace").splitlines(), strict=True) if whole != text]
    unpack = [text.removeprefix("error: ") for text in told if text.startswith("error: remote unpack failed")]
    words = [text for text in [*unpack, *said] if text and not text.startswith("error: hook declined")]
    return f"{line.reason}: {' '.join(words)[:500]}" if words else ""
