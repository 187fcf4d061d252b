"""What to tell of a key that can't stand where it stands: the nearest known one, or what replaces another tool's."""

from collections.abc import Collection

from dstack.model.problems import nearest, shown

_IN_COMMANDS = "put it into `commands`"
_AS_VARIABLES = "write variables into .dstack/variables.yaml"
_OTHERS = {
    "provider": "write `image` (or leave it out for a process on the runner's machine) and `commands`",
    "deps": "write `depends-on: [workflow]`",
    "needs": "write `depends-on: [workflow]`",
    "dependencies": "write `depends-on: [workflow]`",
    "setup": "put it at the beginning of `commands`",
    "before_script": "put it at the beginning of `commands`",
    "steps": "write `commands`",
    "run": "write `commands`",
    "script": "write `commands`",
    "cmd": "write `commands`",
    "command": "write `commands`",
    "entrypoint": "write `commands`",
    "python": "choose an `image` that has it",
    "requirements": "install them in `commands`: `pip install -r …`",
    "environment": "write `env`",
    "outs": "write `artifacts`",
    "outputs": "write `artifacts`",
    "output": "write `artifacts`",
    "gpus": "write `resources: {gpu: n}`",
    "gpu": "write `resources: {gpu: n}`",
    "cpu": "write `resources: {cpu: n}`",
    "memory": "write `resources: {memory: 8GB}`",
    "runs-on": "write `resources`, or `labels`",
    "tags": "write `labels`",
    "strategy": "write `matrix`",
    "variables": _AS_VARIABLES,
    "vars": _AS_VARIABLES,
    "params": _AS_VARIABLES,
    "ports": "there is no replacement yet: write results into `artifacts`, and follow the job by `dstack logs -f`",
    "services": "there is no replacement yet: start what the job needs within `commands`",
    "cwd": "write `working-dir`",
    "workdir": "write `working-dir`",
    "timeout-minutes": "write `timeout: 30m`",
    "retries": "write `retry: n`",
    "if": "there is no replacement yet: decide within `commands`",
    "uses": _IN_COMMANDS,
    "with": _AS_VARIABLES,
    "inputs": "write `depends-on`: artifacts of dependencies appear at the same paths",
    "jobs": "write `workflows`, a list",
    "stages": "write `workflows`, a list, and `depends-on` in each",
    "version": "leave it out",
}
_OF_TRIGGERS = frozenset({"`on`", "`push`", "`pull-request`", "`schedule`"})
_OTHER_TRIGGERS = {
    "merge-request": "write `pull-request`, which means GitLab's merge requests, too",
    "merge-requests": "write `pull-request`, which means GitLab's merge requests, too",
    "pull-requests": "write `pull-request`",
    "pull-request-target": "write `pull-request`; what forks send runs only where a runner allows it",
    "tag": "write `push: {tags: ['*']}`",
    "tags": "write `push: {tags: ['*']}`",
    "create": "write `push`, which means new branches, too",
    "release": "write `push: {tags: ['*']}`",
    "cron": "write `schedule`",
    "workflow-dispatch": "leave it out: every workflow can be started by `dstack run`",
    "workflow-run": "write `depends-on` in the workflow that follows",
    "branches": "write it below `push` or `pull-request`",
    "paths": "write it below `push` or `pull-request`",
    "branches-ignore": "write `branches: ['**', '!name']`",
    "paths-ignore": "write `paths: ['**', '!docs']`",
    "tags-ignore": "write `tags: ['**', '!name']`",
    "types": "leave it out: opened, updated and reopened with another head are what counts",
    "timezone": "write `zone`",
    "tz": "write `zone`",
}


def refusal(key: str, where: str, known: Collection[str]) -> str:
    """What to tell of a key that can't stand in `where` (`workflow`, `resources`…)."""
    dashed = _dashed(key)
    if dashed in known:
        return f"the key is written `{dashed}`, not {shown(key)}"
    if where in {"a workflow", "the file"} and key in _OTHERS:
        return f"dstack has no `{key}`: {_OTHERS[key]}"
    if where in _OF_TRIGGERS and (other := other_trigger(key)):
        return f"dstack has no {shown(key)} in {where}: {other}"
    return f"unknown key {shown(key)} in {where}{nearest(key, known) or f'; known are {chr(44).join(known)}'}"


def other_trigger(word: str) -> str:
    """What replaces a word of other tools' triggers; empty where nothing does."""
    return _OTHER_TRIGGERS.get(_dashed(word), "")


def _dashed(word: str) -> str:
    return word.lower().replace("_", "-")
