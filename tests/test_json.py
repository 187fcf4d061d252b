"""What `--json` prints is what docs/json.md says, and a name that once stood there stays.

`REWRITE_GOLDEN=1 pytest tests/test_json.py` writes the page anew and adds new names; it never takes one away.
"""

import json
import os
from pathlib import Path

import msgspec
import pytest

from tests.calls import Desk, desk
from tests.installed import ROOT
from tests.shapes import SHAPES, names, page

NAMES = Path(__file__).parent / "golden" / "shapes" / "names.json"
PAGE = ROOT / "docs" / "json.md"
BEGIN = "<!-- from the code -->\n"
REWRITE = os.environ.get("REWRITE_GOLDEN") == "1"
WORKFLOWS = """\
workflows:
  - name: prepare
    commands: mkdir -p data && echo 1 > data/one
    artifacts: [data]
  - name: train
    depends-on: [prepare]
    matrix: {lr: [1, 2]}
    commands:
      - mkdir -p out && echo "{\\"loss\\":0.$lr, \\"bad\\":NaN}" > out/m.json
      - echo done >&2; test $lr = 1
    artifacts: [out]
    metrics: [out/m.json]
"""


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    return desk(tmp_path, capfd)


def test_a_name_is_never_removed_and_means_what_it_meant() -> None:
    known = json.loads(NAMES.read_text())
    found = {command: names(shape) for command, shape in SHAPES.items()}
    for command, kept in known.items():
        assert kept.items() <= found[command].items(), f"{command}: a name is gone, or has another kind of value"
    if REWRITE:
        NAMES.write_text(json.dumps(found, indent=2) + "\n")
    assert json.loads(NAMES.read_text()) == found, "there are new names: write them down (see above)"


def test_the_page_says_what_the_code_does() -> None:
    text = PAGE.read_text()
    before = text.partition(BEGIN)[0]
    if REWRITE:
        PAGE.write_text(f"{before}{BEGIN}\n{page()}")
    assert PAGE.read_text() == f"{before}{BEGIN}\n{page()}"


def exactly(at: Desk, shape: str, *command: str) -> None:
    """The answer has the names of its type, no other ones, and values of their kinds."""
    answer = at.dstack(*command)
    assert answer.out, answer
    for text in answer.out.splitlines():
        value = msgspec.json.decode(text, type=SHAPES[shape].type)
        assert json.loads(msgspec.json.encode(value)) == json.loads(text)


def test_what_is_printed_has_the_names_of_its_type(at: Desk) -> None:
    at.write(".dstack/workflows.yaml", WORKFLOWS)
    at.write(".dstack/variables.yaml", "variables: {global: {rows: 5}}\n")
    exactly(at, "run --dry-run", "run", "train", "--dry-run", "--json")
    at.dstack("run", "train", "--local", "-y", "--name", "first")
    exactly(at, "run --detach", "run", "train", "-d", "--json", "--name", "second", "-y", "--rows", "7")
    assert at.dstack("tag", "first").code == 0
    exactly(at, "status", "status", "--all", "--json")
    exactly(at, "logs", "logs", "first", "--json")
    exactly(at, "artifacts", "artifacts", "first", "--json")
    exactly(at, "metrics", "metrics", "first", "second", "--json")
    exactly(at, "diff", "diff", "first", "second", "--json")
    exactly(at, "tags", "tags", "--json")
    exactly(at, "runners", "runners", "--json")
    exactly(at, "config list", "config", "list", "--json")
    exactly(at, "doctor", "doctor", "--json")
    (failed,) = [one for one in at.dstack("metrics", "first", "--json").json if one["status"] == "FAILED"]
    assert failed["metrics"] == {"loss": 0.2, "bad": None}


def test_times_are_iso_8601_in_utc(at: Desk) -> None:
    at.dstack("run", "hello", "--local", "-y", "--name", "first")
    (run,) = at.dstack("status", "--json").json
    lines = [json.loads(line) for line in at.dstack("logs", "first", "--json").out.splitlines()]
    times = [run["submitted_at"], run["finished_at"], run["jobs"][0]["started_at"], lines[0]["at"]]
    assert all(time.endswith("Z") for time in times), times
