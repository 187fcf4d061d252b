"""How long planning takes: a run of 10,000 jobs from one matrix, between a first job and a last one that needs all.

`python -m benchmarks.plan` prints the median of ten.
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


def main() -> None:
    spec = RunSpec(
        repository="r",
        run="fast-rabbit-1",
        workflow="compare",
        code=Code(commit=ROOT, snapshot=ROOT),
        submitted_by="ada",
        submitted_at=datetime(2026, 11, 22, tzinfo=UTC),
        nonce="n",
    )
    times: list[float] = []
    jobs = 0
    for _ in range(10):
        start = time.perf_counter()
        jobs = len(make_plan(ROOT, spec, WORKFLOWS.encode(), VARIABLES.encode()).jobs)
        times.append(time.perf_counter() - start)
    print(f"plan of {jobs} jobs: median {statistics.median(times) * 1000:.0f} ms (at most 600)")


if __name__ == "__main__":
    main()
