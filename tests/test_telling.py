"""A ledger that says when something was pushed, or has changed."""

from dstack.ledger.memory import MemoryLedger, MemoryRemote
from dstack.ledger.telling import Telling
from dstack.model.observation import SetSeen
from dstack.model.seen import Move


def _write(ledger: MemoryLedger | Telling, commit: str) -> bool:
    seen = ledger.observe()
    return ledger.commit([SetSeen(move=Move(marks={"heads/main": commit * 40}))], seen, atomic=True).won


def test_a_push_is_told_at_once_and_the_change_of_another_at_the_next_look() -> None:
    remote = MemoryRemote(repository="repository-1")
    ledger, heard = Telling(MemoryLedger(remote)), list[str]()
    ledger.observe()
    ledger.told, ledger.changed = (lambda: heard.append("told")), (lambda: heard.append("changed"))
    ledger.observe()
    assert heard == [], "nothing has changed"
    assert _write(ledger, "a")
    assert heard == ["told", "changed"]
    ledger.observe()
    heard.clear()
    assert _write(MemoryLedger(remote), "b")
    assert heard == []
    ledger.observe()
    assert heard == ["changed"]
