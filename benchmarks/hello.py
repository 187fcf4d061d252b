"""Measures `dstack run hello` from submit to exit with warm daemons: `python -m benchmarks.hello [--docker IMAGE]`.

With an image, also in Docker, in turn with `docker run --rm` of the same. Medians.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.daemons import make, up

ROUNDS = 15
WORKFLOWS = "workflows:\n- {name: hello, commands: [echo hello]}\n"
IN_DOCKER = "- {{name: docker, image: {image}, commands: [echo hello]}}\n"


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docker", metavar="IMAGE")
    image: str | None = parser.parse_args().docker
    with tempfile.TemporaryDirectory() as folder:
        bench = make(Path(folder), WORKFLOWS + (IN_DOCKER.format(image=image) if image else ""))
        with up(bench):
            report("as a process (at most 0.6)", [bench.seconds("dstack", "run", "hello") for _ in range(ROUNDS)])
            if image:
                bench.run("dstack", "run", "docker")
                pairs = [
                    (
                        bench.seconds("dstack", "run", "docker"),
                        bench.seconds("docker", "run", "--rm", image, "sh", "-c", "echo hello"),
                    )
                    for _ in range(ROUNDS)
                ]
                report("in Docker", [ours for ours, _ in pairs])
                report("docker run --rm", [theirs for _, theirs in pairs])
                report("difference (at most 0.4)", [ours - theirs for ours, theirs in pairs])


def report(what: str, seconds: list[float]) -> None:
    """A line: the median, and how far the rounds lie apart."""
    print(f"{what:28} {statistics.median(seconds):6.3f} s   ({min(seconds):.3f} to {max(seconds):.3f})")


if __name__ == "__main__":
    main()
