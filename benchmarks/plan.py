"""How long planning takes: 10,000 jobs of one matrix, and of 1,000 workflows with a matrix each; what is asked is 2 s.

`python -m benchmarks.plan` prints the medians of five, parsing of both files included.
"""

import statistics
import time
from datetime import UTC, datetime

from dstack.model.planner import make_plan
from dstack.model.runspec import Code, RunSpec

ROOT = "5ab98f2089ae5ab98f2089ae5ab98f2089ae5ab9"
WORKFLOWS = f"""
workflows:
- {{name: prepare, commands: [python prepare.py], artifacts: [data]}}
- name: train
  image: python:3.12-slim
  depends-on: [prepare]
  commands: [pip install -r requirements.txt, python train.py $variables_as_args]
  artifacts: [model]
  resources: {{cpu: 2, memory: 4GB}}
  env: {{PRECISION: 3.10}}
  timeout: 2h
  matrix: {{seed: {list(range(98))}, lr: {list(range(102))}}}
- {{name: compare, depends-on: [train], commands: [python compare.py]}}
"""
VARIABLES = "variables: {global: {epochs: 3, batch-size: 64}, train: {optimizer: adam}}"


def many() -> str:
    """1,000 workflows with every kind of key; all but the last have ten jobs, and the last needs them all."""
    lines = ["workflows:"]
    for number in range(999):
        need = f"depends-on: {{workflows: [w{number - 1}], repo: {{include: [src]}}}}, " if number % 10 else ""
        lines.append(
            f"- {{name: w{number}, commands: [python train.py $variables_as_args], {need}"
            f"artifacts: [{{path: out{number}, save: 10m}}], metrics: [out{number}/m.json], secrets: [HF_TOKEN], "
            "resources: {cpu: 2, memory: 4GB}, volumes: ['data:data:ro'], cache-dirs: [.cache], max-parallel: 4, "
            "matrix: {seed: [1, 2, 3, 4, 5, 6], lr: [0.1, 0.01], exclude: [{seed: 6}, {seed: 5, lr: 0.1}], "
            "include: [{seed: 7, lr: 1}]}}"
        )
    lines.append(f"- {{name: compare, commands: [x], depends-on: [{', '.join(f'w{n}' for n in range(999))}]}}")
    return "\n".join(lines)


def main() -> None:
    for title, workflows, limit in (("one matrix", WORKFLOWS, 600), ("1,000 workflows", many(), 1500)):
        times, jobs = measured(workflows)
        print(f"plan of {jobs} jobs, {title}: median {statistics.median(times) * 1000:.0f} ms (at most {limit})")


def measured(workflows: str) -> tuple[list[float], int]:
    """Seconds of each try, and how many jobs there are."""
    spec = RunSpec(
        repository="r",
        run="fast-rabbit-1",
        workflow="compare",
        code=Code(commit=ROOT, snapshot=ROOT),
        submitted_by="ada",
        submitted_at=datetime(2026, 11, 22, tzinfo=UTC),
        nonce="n",
    )
    variables = VARIABLES if "name: train" in workflows else "variables: {global: {epochs: 3, batch-size: 64}}"
    times: list[float] = []
    jobs = 0
    for number in range(5):
        fresh = f"{workflows}\n# {number}\n"  # the same text would not be read again
        start = time.perf_counter()
        jobs = len(make_plan(ROOT, spec, fresh.encode(), variables.encode()).jobs)
        times.append(time.perf_counter() - start)
    return times, jobs


if __name__ == "__main__":
    main()
