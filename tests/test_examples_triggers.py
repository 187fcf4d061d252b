"""The example with triggers starts what its README says."""

import pytest

from tests.installed import ROOT
from tests.triggers import begun

FILE = (ROOT / "examples" / "triggers" / ".dstack" / "workflows.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("ref", "files", "started"),
    [
        ("refs/heads/topic", "src/count.py", ["check"]),
        ("refs/heads/main", "src/count.py README.md", ["check", "train"]),
        ("refs/heads/main", "src/notes.md README.md", ["check"]),
        ("refs/heads/release/1.2", "src/count.py", ["check", "train"]),
        ("refs/pull/1/head", "src/count.py", ["check"]),
        ("refs/tags/v1.2", "README.md", ["publish"]),
        ("refs/tags/v1.2-rc1", "README.md", []),
        ("refs/tags/nightly", "README.md", []),
    ],
)
def test_what_starts(ref: str, files: str, started: list[str]) -> None:
    memory = begun(main="a")
    memory.remote.push(ref, "b", FILE, files=files, parent="a")
    assert [run.partition(" ")[0] for run in memory.turn()] == started


def test_training_starts_on_working_days() -> None:
    memory = begun(main="a")
    memory.remote.push("main", "b", FILE)
    memory.turn()
    found = []
    for _ in range(14):  # from Monday noon on
        memory.wait(hours=12)
        found += [memory.now.strftime("%a") for run in memory.turn() if run == "train schedule schedule/train"]
    assert found == ["Tue", "Wed", "Thu", "Fri", "Mon"]
