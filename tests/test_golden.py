"""Golden files: workflows, variables and run.yaml → the plan, with its ids. A changed id is a changed planner.

`REWRITE_GOLDEN=1 pytest tests/test_golden.py` writes them anew; then look at the difference before you commit it.
"""

import os
from pathlib import Path

import msgspec
import pytest

from dstack.model.planner import make_plan
from dstack.model.runtext import from_text

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.name.removesuffix(".run.yaml") for path in GOLDEN.glob("*.run.yaml"))
ROOT = "5ab98f2089ae5ab98f2089ae5ab98f2089ae5ab9"
REWRITE = os.environ.get("REWRITE_GOLDEN") == "1"


@pytest.mark.parametrize("case", CASES)
def test_the_plan_is_the_golden_one(case: str) -> None:
    spec, _ = from_text((GOLDEN / f"{case}.run.yaml").read_bytes())
    variables = GOLDEN / f"{case}.variables.yaml"
    workflows = (GOLDEN / f"{case}.workflows.yaml").read_bytes()
    plan = make_plan(ROOT, spec, workflows, variables.read_bytes() if variables.exists() else None)
    found = msgspec.json.format(msgspec.json.encode(plan.jobs, order="sorted"), indent=2) + b"\n"
    golden = GOLDEN / f"{case}.json"
    if REWRITE:
        golden.write_bytes(found)
    assert found.decode() == golden.read_text(encoding="utf-8")


def test_there_are_golden_files() -> None:
    assert {path.name.removesuffix(".json") for path in GOLDEN.glob("*.json")} == set(CASES)
    assert len(CASES) >= 4
