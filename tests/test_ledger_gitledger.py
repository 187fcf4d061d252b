from pathlib import Path

import pytest

from dstack.ledger.submit import create_repository
from dstack.model import events, refs
from dstack.model.errors import Conflict
from dstack.model.observation import AppendNotes, BrokenRun, RunRecord
from dstack.model.runspec import Desired
from tests.repositories import NOW, WORKFLOWS, bare, place, sh, work


def test_a_submitted_run_is_observed(tmp_path: Path) -> None:
    here = place(work(tmp_path / "code"), tmp_path / "cache")
    made = here.submit()
    seen = here.ledger.observe()
    record = seen.runs["fast-rabbit-1"]
    assert isinstance(record, RunRecord)
    assert (record.root, record.key, record.workflows.decode()) == (made.root, made.key, WORKFLOWS)
    assert here.ledger.observe() is seen
    assert sh(here.code.top, "status", "--porcelain") == ""


def test_notes_are_appended_and_read(tmp_path: Path) -> None:
    here = place(work(tmp_path / "code"), tmp_path / "cache")
    made = here.submit()
    for seq in (1, 2):
        seen = here.ledger.observe()
        event = events.Resumed(seq=seq, at=NOW, generation=seq, jobs=(), message="hello")
        change = AppendNotes(key=made.key, writer="controller", events={made.root: (event,)}, jobs={})
        assert here.ledger.commit([change], seen, atomic=True).won
    notes = here.ledger.observe().notes[made.key]["controller"]
    assert [event.seq for event in notes.on(made.root).events] == [1, 2]
    told = sh(here.code.top, "log", "-1", f"--notes=dstack/{made.key}/controller", made.root)
    assert '"event":"resumed"' in told
