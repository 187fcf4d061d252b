"""The list of commands: name, module, and the line each has in `--help`. Nothing is imported for the list."""

from collections.abc import Mapping
from typing import NamedTuple


class Listed(NamedTuple):
    """`module` has the click command as `command`. A hidden name is another word for one that is listed."""

    module: str
    help: str
    hidden: bool = False


COMMANDS: Mapping[str, Listed] = {
    "init": Listed("cli.init", "Set up a repository: id, store, access check, a sample workflow"),
    "up": Listed("cli.up", "Controller and one runner on this machine, until interrupted"),
    "run": Listed("cli.run", "Run a workflow: `dstack run --help` lists them"),
    "status": Listed("cli.status", "What runs, what waits and why, what ended and how"),
    "ps": Listed("cli.status", "The same as status", hidden=True),
    "logs": Listed("cli.logs", "The output of a run or job"),
    "artifacts": Listed("cli.artifacts", "What a run or job has made: list or download it"),
    "metrics": Listed("cli.metrics", "What jobs have measured, a row each: compare a sweep"),
    "diff": Listed("cli.diff", "What differs between two runs or jobs, or one and your work tree"),
    "checkout": Listed("cli.checkout", "The code of a run in a folder, to look at or to work on"),
    "stop": Listed("cli.stop", "Stop or abort runs and jobs"),
    "resume": Listed("cli.resume", "Let a run that was stopped or failed go on"),
    "tag": Listed("cli.tag", "Name a run, or store files under a name, for others to depend on"),
    "untag": Listed("cli.untag", "Take a tag away"),
    "tags": Listed("cli.tags", "All tags, and what they name"),
    "prune": Listed("cli.prune", "Free the store of what ended long ago; remove a run wholly"),
    "config": Listed("cli.config", "Settings: what holds here, where it comes from, change it"),
    "runners": Listed("cli.runners", "The machines of the pool"),
    "controller": Listed("cli.controller", "The controller as a daemon"),
    "completion": Listed("cli.completion", "Have your shell complete commands, workflows, runs and tags"),
    "schema": Listed("cli.schema", "The JSON Schema of a file, for editors"),
    "doctor": Listed("cli.doctor", "Check everything dstack needs; say how to mend it"),
}

RUNNER_COMMANDS: Mapping[str, Listed] = {
    "config": Listed("cli.runner_config", "Set what this machine offers, and to whom"),
    "start": Listed("cli.runner_start", "Pick up jobs and run them, until interrupted"),
    "drain": Listed("cli.runner_drain", "Let it finish what it has begun, and end"),
    "secret": Listed("cli.runner_secret", "Keep secrets for jobs that ask for them by name"),
    "install": Listed("cli.runner_install", "Write a systemd unit that starts it"),
    "uninstall": Listed("cli.runner_uninstall", "Remove the systemd unit"),
    "status": Listed("cli.runner_status", "What this machine's runner is doing"),
}
