"""Console blocks of the documentation as something to run: `$` lines are commands, the rest is what they print.

A block is run if a comment stands right above it:

    <!-- tested: digits -->      in a new repository with a copy of `examples/digits`
    <!-- tested: empty -->       in a new, empty folder
    <!-- tested: same -->        where the block before it left off
    <!-- tested: same, as PATH -->   likewise, and it is the content of a file

In the expected output `...` stands for anything, and a line of only that for any lines. A command without expected
output may print what it likes. Every command must succeed.
"""

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(
    r"^<!-- tested: (?P<where>\w+)(?:, as (?P<file>\S+))? -->\n```\w*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
MARK = "\x1e"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A command, and the lines it should print; none where anything goes."""

    command: str
    expected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Blocks that are run one after another in one shell."""

    where: str
    steps: tuple[Step, ...]


def sessions(text: str) -> Iterator[Session]:
    """The sessions of a page. Raises ValueError where a page begins with `same`."""
    open_session: Session | None = None
    for block in BLOCK.finditer(text):
        found = (_writing(block["file"], block["text"]),) if block["file"] else tuple(steps(block["text"]))
        if block["where"] != "same":
            if open_session:
                yield open_session
            open_session = Session(where=block["where"], steps=found)
        elif open_session:
            open_session = Session(where=open_session.where, steps=(*open_session.steps, *found))
        else:
            message = "the first tested block can't go on where another left off"
            raise ValueError(message)
    if open_session:
        yield open_session


def steps(block: str) -> Iterator[Step]:
    """The commands of a block. A comment behind a command (two blanks and `#`) is for the reader."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *expected = part.rstrip("\n").split("\n")
        yield Step(command=re.sub(r"\s{2,}# .*", "", command), expected=tuple(expected))


def _writing(path: str, text: str) -> Step:
    return Step(command=f"cat > {path} <<'END OF FILE'\n{text}END OF FILE")


def matches(expected: tuple[str, ...], output: str) -> bool:
    """Whether the output is as expected. Blanks at the ends of lines and blank lines at the end don't count."""
    if not expected:
        return True
    lines = (r"(?:.*\n)*?" if line.strip() == "..." else _line(line) + r"[ \t]*\n" for line in expected)
    return re.fullmatch("".join(lines) + r"\s*", output.rstrip() + "\n") is not None


def _line(text: str) -> str:
    return ".*".join(re.escape(part) for part in text.rstrip().split("..."))


def script(session: Session) -> str:
    """What the shell runs: it stops at the first command that fails, and marks where each one's output begins."""
    return "set -e\n" + "".join(f"printf '{MARK}'\n{step.command}\n" for step in session.steps)


def run(session: Session, folder: Path, environment: Mapping[str, str], *, seconds: float) -> list[str]:
    """What is wrong with the session; nothing, if all is well. Ends whatever it started."""
    with subprocess.Popen(
        ["sh"],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            output, _ = shell.communicate(script(session), timeout=seconds)
        except subprocess.TimeoutExpired:
            return [f"not at its end after {seconds} s"]
        finally:
            _end_group(shell.pid)
    return list(_complaints(session, output.split(MARK)[1:], shell.returncode))


def _end_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def _complaints(session: Session, outputs: list[str], code: int) -> Iterator[str]:
    for step, output in zip(session.steps, outputs, strict=False):
        if not matches(step.expected, output):
            yield f"$ {step.command}\nshould print:\n" + "\n".join(step.expected) + f"\nbut printed:\n{output}"
    if code:
        yield f"$ {session.steps[len(outputs) - 1].command}\nended with {code}:\n{outputs[-1]}"
