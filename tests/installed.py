"""The commands of this checkout as a user has them: on PATH, beside `python`."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

_SCRIPT = """\
#!{python}
import sys
sys.path.insert(0, {root!r})
from dstack.__main__ import {entry}
sys.exit({entry}())
"""


def search_path(folder: Path) -> str:
    """A PATH on which `dstack`, `dstack-runner` and `python` are ours; the scripts are written into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, entry in (("dstack", "main"), ("dstack-runner", "runner_main")):
        script = folder / name
        script.write_text(_SCRIPT.format(python=sys.executable, root=str(ROOT), entry=entry))
        script.chmod(0o755)
    return f"{folder}:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
