"""Draws docs/pictures/*.svg: what real commands show on terminals of 80 and 160 columns. `python -m docs.pictures`."""

import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parent.parent
FOLDER = Path(__file__).parent / "pictures"
WIDTHS = (80, 160)
SWEEP = "run finetune-model --local --name sweep --model 117M --matrix learning_rate=0.00001,0.00002,0.00004"
SHOWN = {
    "run": "run finetune-model --local --name first --model 117M --no-cache",
    "status": "status sweep",
    "metrics": "metrics sweep --sort loss",
    "error": "run finetune-model --learning_rat 0.1",
}
CURSOR = re.compile(r"\x1b\[\??[0-9;]*[A-HJKSThl]")
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
CLIPPED = re.compile(
    r' clip-path="url\(#\w+-line-\d+\)"'
)  # cuts off what hangs below the line, by the font that is there
INDENTED = re.compile(r'x="([\d.]+)" y="([\d.]+)" textLength="([\d.]+)">((?:&#160;)+)(?=[^<])')
CELL = 12.2  # rich's width of a character
_START = "import sys; from dstack.__main__ import main; sys.exit(main())"


def draw() -> None:
    """All of them, in a repository and a home of their own that are gone afterwards."""
    FOLDER.mkdir(exist_ok=True)
    for width in WIDTHS:
        with tempfile.TemporaryDirectory() as scratch:
            project, environment = _project(Path(scratch), width)
            shown_on_terminal(SWEEP, project, environment)
            for name, command in SHOWN.items():
                output = shown_on_terminal(command, project, environment)
                (FOLDER / f"{name}-{width}.svg").write_text(picture(command, output, width), encoding="utf-8")


def _project(scratch: Path, width: int) -> tuple[Path, Mapping[str, str]]:
    project = shutil.copytree(ROOT / "examples" / "gpt2", scratch / "project")
    identity = {f"GIT_{role}_{key}": f"Ada{end}" for role in ("AUTHOR", "COMMITTER") for key, end in _NAMED.items()}
    kept = {key: value for key, value in os.environ.items() if key in {"PATH", "LANG"}}
    environment = {
        **kept,
        **identity,
        "HOME": str(scratch),
        "PYTHONPATH": str(ROOT),
        "COLUMNS": str(width),
        "TERM": "xterm-256color",
    }
    for command in ("init --quiet", "add --all", "commit --quiet --message=example"):
        subprocess.run(["git", *command.split()], cwd=project, env=environment, check=True)
    return project, environment


_NAMED = {"NAME": "", "EMAIL": "@example.org"}


def shown_on_terminal(command: str, folder: Path, environment: Mapping[str, str]) -> str:
    """What `dstack <command>` shows on a terminal, with its colours."""
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-c", _START, *command.split()]
    output = b""
    with subprocess.Popen(
        argv, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    ):
        os.close(theirs)
        while data := _read(ours):
            output += data
    os.close(ours)
    return output.decode()


def _read(side: int) -> bytes:
    try:
        return os.read(side, 4096)
    except OSError:  # the other side is closed: that is how a terminal ends
        return b""


def picture(command: str, output: str, width: int) -> str:
    """An SVG of a terminal. It names no font of another server."""
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in CURSOR.sub("", output).split("\n")]
    console = Console(record=True, width=width, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text(f"$ dstack {command}", style="bold"))
    console.print(Text.from_ansi("\n".join(lines).rstrip()), highlight=False)
    console.print()  # room for what hangs below the last line
    drawn = console.export_svg(title=f"{width} columns", theme=MONOKAI, unique_id=f"dstack{width}")
    plain = INDENTED.sub(_moved, CLIPPED.sub("", FONTS.sub("", drawn)))
    return "\n".join(line.rstrip() for line in plain.splitlines()) + "\n"


def _moved(text: re.Match[str]) -> str:
    """Text further to the right instead of behind spaces, which some programs leave out."""
    x, y, length, spaces = text.groups()
    indent = spaces.count(";") * CELL
    return f'x="{float(x) + indent:.1f}" y="{y}" textLength="{max(float(length) - indent, CELL):.1f}">'


if __name__ == "__main__":
    draw()
