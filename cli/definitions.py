"""The workflows and variables in the user's work tree, for `dstack run --help` and its flags."""

from dataclasses import dataclass
from pathlib import Path

from dstack.ledger.code import CodeRepository, find_code
from dstack.model.choices import Flags
from dstack.model.errors import Failed, Invalid
from dstack.model.variables import PATH as VARIABLES
from dstack.model.variables import Variables, parse_variables
from dstack.model.workflow import Workflows
from dstack.model.workflows import PATH as WORKFLOWS
from dstack.model.workflows import parse_workflows


@dataclass(frozen=True, slots=True, kw_only=True)
class Definitions:
    """What the two files say, and the repository they stand in."""

    code: CodeRepository
    workflows: Workflows
    variables: Variables

    def flags(self, workflow: str) -> Flags:
        """What can be set when this workflow is run. Raises Invalid where there is none of that name."""
        return Flags(self.workflows, self.variables, workflow)


def load_definitions(folder: Path) -> Definitions:
    """Read the files of the work tree around `folder`. Raises Invalid with every problem in them."""
    code = find_code(folder)
    text = _read(code.top / WORKFLOWS)
    if text is None:
        msg = f"there is no {WORKFLOWS} in {code.top}: `dstack init` writes a sample, or see docs/workflows.md"
        raise Invalid(msg)
    workflows = _workflows(text)
    variables = parse_variables(_read(code.top / VARIABLES), workflows)
    return Definitions(code=code, workflows=workflows, variables=variables)


def _workflows(text: bytes) -> Workflows:
    """What `env` may name is checked where it counts: when the run is submitted, with its --allow-env."""
    try:
        return parse_workflows(text)
    except Invalid:
        return parse_workflows(text, allow_env=None)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        msg = f"{path} can't be read: {error.strerror}"
        raise Failed(msg) from error
