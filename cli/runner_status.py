"""`dstack-runner status`: what this machine's runner is doing."""

import os
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from cli.ago import ago
from cli.door import GOOD, TROUBLE
from cli.runners import RunnerLine, idle, runner_line
from cli.session import seen_by
from cli.terminal import say
from dstack.ledger import records
from dstack.ledger.cache import Cache
from dstack.ledger.git import Context
from dstack.ledger.remote import find_remote
from dstack.model import refs
from dstack.model.errors import Invalid
from runner.config import RunnerConfig, read_config, state_folder

EXAMPLE = """\b
Example:
  dstack-runner status         # exit code 1 where it isn't live"""


@click.command(epilog=EXAMPLE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(state: Path | None, *, as_json: bool) -> int:
    """Show whether this machine's runner is live, and its jobs."""
    folder = state or state_folder(os.environ)
    config = read_config(folder)
    if config is None or config.remote is None:
        msg = f"there is no runner in {folder} yet: `dstack-runner config --remote PATH`"
        raise Invalid(msg)
    line = _line(folder, config, config.remote)
    if as_json:
        say(msgspec.json.encode(line).decode())
    elif line is None:
        say(f"{config.name} has not registered yet: start it with `dstack-runner start`")
    else:
        jobs = f", jobs: {', '.join(line.jobs)}" if line.jobs else ""
        pause = f", and begins nothing: {line.pause}" if line.pause else "".join(f", {why}" for why in idle(line))
        say(f"{line.runner} is {line.status}{pause} (seen {ago(line.updated_at, datetime.now(UTC))}){jobs}")
    return GOOD if line and line.status == "live" else TROUBLE


def _line(folder: Path, config: RunnerConfig, remote: str) -> RunnerLine | None:
    found = find_remote(remote, Path.cwd())
    place = folder / "status.git"
    cache = Cache(place, found.url, context=Context(folder=place, environment=found.environment))
    seen = seen_by(cache)
    ref = refs.runner(config.name)
    if ref not in seen.found:
        return None
    return runner_line(records.read_registration(cache.objects, config.name, seen.found[ref]), seen)
