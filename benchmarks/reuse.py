"""Measures what reuse costs users: `python -m benchmarks.reuse [--jobs N]`. Medians.

A second `dstack run` of a finished pipeline with warm daemons (at most 0.8 s); `--dry-run` of it, and of N jobs
(10,000) of 1,000 workflows (at most 2 s).
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.daemons import Bench, make, up
from benchmarks.hello import report

ROUNDS = 9
PIPELINE = """workflows:
- {name: hello, commands: [echo hello]}
- {name: download, commands: [mkdir -p models, echo "$model" > models/weights], artifacts: [models]}
- {name: encode, commands: [mkdir -p data, cat models/weights > data/all], artifacts: [data], depends-on: [download]}
- name: finetune
  commands: [mkdir -p out, cat models/weights data/all > "out/$learning_rate"]
  artifacts: [out]
  depends-on: [download, encode]
"""
VARIABLES = "variables: {global: {model: 124M}, finetune: {learning_rate: 0.00002}}\n"


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    jobs: int = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as folder:
        bench = make(Path(folder), PIPELINE)
        (bench.code / ".dstack" / "variables.yaml").write_text(VARIABLES)
        with up(bench):
            report("the first run", [bench.seconds("dstack", "run", "finetune")])
            report("again, all reused (0.8)", [bench.seconds("dstack", "run", "finetune") for _ in range(ROUNDS)])
            check(bench)
            dry = [bench.seconds("dstack", "run", "finetune", "--dry-run") for _ in range(ROUNDS)]
            report("--dry-run of it", dry)
    with tempfile.TemporaryDirectory() as folder:
        bench = make(Path(folder), many(jobs))
        bench.run("dstack", "init")
        report(f"--dry-run of {jobs} jobs (2)", [bench.seconds("dstack", "run", "last", "--dry-run") for _ in range(3)])


def check(bench: Bench) -> None:
    """What is measured is what it is said to be."""
    (run,) = json.loads(bench.run("dstack", "status", "-n", "1", "--json"))
    if not all(job["reused_from"] for job in run["jobs"]):
        sys.exit(f"not everything was reused: {run}")


def many(jobs: int) -> str:
    """1,000 workflows with so many jobs in all, and a last one that depends on them."""
    seeds = ", ".join(str(seed) for seed in range(jobs // 1000))
    lines = [f"- {{name: w{n}, commands: [echo $seed], matrix: {{seed: [{seeds}]}}}}" for n in range(999)]
    needs = ", ".join(f"w{n}" for n in range(999))
    return "\n".join(["workflows:", *lines, f"- {{name: last, commands: [echo last], depends-on: [{needs}]}}", ""])


if __name__ == "__main__":
    main()
