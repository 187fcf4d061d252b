"""The report on a mistake of ours: what happened and where, without what must not leave the machine."""

import os
import platform
import re
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from dstack import __version__
from dstack.model.names import looks_secret

HIDDEN = "***"
# A shorter value would blacken the text everywhere, and tells nobody anything.
SHORTEST = 6
_CREDENTIALS = re.compile(r"(?<=://)[^\s/@'\"]+@")
_ASSIGNED = re.compile(
    r"(?i)\b([\w-]*(?:token|secret|passw(?:or)?d|api[_-]?key)[\w-]*['\"]?\s*[=:]\s*)(['\"]?)[^\s'\",;]+"
)


def report_text(program: str) -> str:
    """The error that is being handled: versions, the command's name alone, the traceback."""
    words = [word for word in sys.argv[1:] if word.isalpha()][:1]
    told = f"{program} {' '.join(words)}".strip()
    head = f"{told}, version {__version__}, Python {platform.python_version()}, {platform.platform()}"
    return redacted(f"{head}\n\n{traceback.format_exc()}", os.environ)


def redacted(text: str, environment: Mapping[str, str]) -> str:
    """The text without credentials in addresses, what is assigned to a name like a secret's, and such variables."""
    secrets = {value for name, value in environment.items() if looks_secret(name) and len(value) >= SHORTEST}
    for value in sorted(secrets, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return _ASSIGNED.sub(rf"\1\2{HIDDEN}", _CREDENTIALS.sub(f"{HIDDEN}@", text))


def write_report(text: str) -> Path | None:
    """A new file that only its owner can read; None where there is no place for it."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    for folder in (Path(state) / "dstack" / "reports", Path(os.environ.get("TMPDIR", "/tmp"))):  # noqa: S108 (made anew, 0600)
        path = folder / f"dstack-report-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.txt"
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 (a mode)
                file.write(text)
            return path
    return None
