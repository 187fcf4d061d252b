"""Watching the process list sees what a test started, however far it went away, and nothing of other tests."""

import os
import subprocess
import time
from pathlib import Path

from tests.watching import watched_processes


def test_orphans_are_seen_and_so_are_those_without_an_environment_but_not_other_tests(home: Path) -> None:
    other = home.with_name("home-of-another")
    with watched_processes() as seen:
        # The shell ends at once: what it leaves is nobody's child.
        subprocess.run("setsid sleep 0.71 & env -i sleep 0.72 & sleep 0.73 &", shell=True, check=True)  # noqa: S602
        subprocess.run(["sleep", "0.74"], env={**os.environ, "HOME": str(other)}, check=True)
        time.sleep(0.1)
    found = b"\n".join(seen)
    assert [number for number in (71, 72, 73, 74) if b"sleep 0.%d" % number in found] == [71, 72, 73]
