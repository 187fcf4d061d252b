"""Measures 200 trivial process jobs of one run, two at a time, in jobs a second and pushes a job.

`python -m benchmarks.jobs`
"""

import tempfile
from pathlib import Path

from benchmarks.daemons import make, up

JOBS = 200
WORKFLOWS = f"""workflows:
- {{name: hello, commands: [echo hello]}}
- {{name: many, commands: ['true'], matrix: {{n: {list(range(JOBS))}}}}}
"""


def main() -> None:
    """Print both figures. The pushes are those of everybody, counted by a hook of the remote."""
    with tempfile.TemporaryDirectory() as folder:
        bench = make(Path(folder), WORKFLOWS, counting=True)
        with up(bench):
            before = bench.pushes
            seconds = bench.seconds("dstack", "run", "many")
            pushes = bench.pushes - before
    print(f"{JOBS} jobs in {seconds:.1f} s: {JOBS / seconds:.1f} a second (at least 15)")
    print(f"{pushes} pushes: {pushes / JOBS:.2f} a job (at most 2)")


if __name__ == "__main__":
    main()
