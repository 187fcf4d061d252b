"""Where the console scripts enter: makes sure that what is imported next is ours, then opens the door asked for.

A user's own `cli`, `runner` or `click.py` on PYTHONPATH would come before ours, so the folder this package was
installed in goes first on `sys.path`. A user's own *package* called `dstack` (with an `__init__.py`) on PYTHONPATH
hides this file itself, as it would for any program written in Python: that can't be mended from here.
"""

import gc
import importlib
import os
import sys

from dstack import interrupts

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
INTERRUPTED = 130


def main() -> int:
    """Run the `dstack` command; the result is its exit code."""
    return _enter("cli.main")


def runner_main() -> int:
    """Run the `dstack-runner` command; the result is its exit code."""
    return _enter("cli.runner_door")


def _enter(door: str) -> int:
    """Import a door by its name, late: only now is the path right, and the kernel imports nothing above it."""
    try:
        interrupts.remember()
        sys.path.insert(0, _HERE)
        rival = rival_distribution(sys.path)
        if rival is not None:
            sys.stderr.write(_explanation(rival))
            return 1
        code: int = importlib.import_module(door).main()
        gc.freeze()  # or Python, on its way out, would look once more at all it has loaded: some 20 ms
    except KeyboardInterrupt:
        return INTERRUPTED
    except ImportError:
        if interrupts.is_pending():  # it came in the middle of an import, which then failed for that
            return INTERRUPTED
        raise
    return code


def rival_distribution(path: list[str]) -> str | None:
    """Where another distribution that owns the name `dstack` is installed, if one is.

    Reads folder listings alone: importlib.metadata would cost more than the rest of the start.
    """
    for folder in dict.fromkeys(path):
        for name in _names(folder):
            if name.startswith("dstack-") and name.endswith((".dist-info", ".egg-info")):
                return os.path.join(folder, name)
    return None


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder or ".")
    except OSError:  # a zip file, or a folder that is gone: Python itself passes over it
        return []


def _explanation(rival: str) -> str:
    return (
        f"dstack: another distribution that owns the name `dstack` is installed here: {rival}\n"
        "Each overwrites files of the other, so neither is sound. Keep them apart: `pipx install dstack-gitops`.\n"
        "Or mend it here: `pip uninstall dstack`, then `pip install --force-reinstall dstack-gitops`.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
