"""What a job's shell gets: the script, and the environment in which variables reach it. Values are never shell code."""

import shlex
from collections.abc import Iterator, Mapping

from dstack.model.errors import Invalid
from dstack.model.job import Job
from dstack.model.names import is_shell_name, shell_name
from dstack.model.problems import shown
from dstack.model.shell_arguments import NAME, with_arguments

MAX_SHOWN = 100_000  # bytes; Linux takes 128 KiB for one variable


def script(job: Job) -> str:
    """The text for `sh -e`: the commands one below the other.

    `$variables_as_args`, standing as an unquoted word, becomes `--name "$NAME"` for each variable, so that the shell
    itself puts the values in, each as one argument, and evaluates none.
    """
    arguments = " ".join(f'{_flag(name)} "${{{shell_name(name)}}}"' for name in sorted(job.variables))
    return with_arguments("\n".join(command.rstrip("\n") for command in job.commands) + "\n", arguments)


def job_environment(job: Job, *, run: str, job_id: str, attempt: int) -> dict[str, str]:
    """What commands find in their environment; PATH, HOME and LANG are the executor's.

    `run` is the run's name, `job_id` the job's 12 digits. Raises Invalid where a name or value
    (of a job that no planner made) can't stand in an environment.
    """
    environment = {
        "PYTHONUNBUFFERED": "1",
        **job.environment,
        **dict(_variables(job.variables)),
        "run_name": run,
        "RUN_NAME": run,
        "job_id": job_id,
        "JOB_ID": job_id,
        "DSTACK_RUN": run,
        "DSTACK_JOB": job_id,
        "DSTACK_ATTEMPT": str(attempt),
        NAME: _rendered(job.variables),
    }
    for name, value in environment.items():
        _check(name, value)
    return environment


def _variables(variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each variable by its own name, where a shell can have that, and in upper case."""
    for name, value in variables.items():
        if is_shell_name(name):
            yield name, value
    for name, value in variables.items():
        yield shell_name(name), value


def _rendered(variables: Mapping[str, str]) -> str:
    """The arguments as a shell would take them, for where they stand quoted: in messages, or for another shell."""
    words = (f"{_flag(name)} {shlex.quote(value)}" for name, value in sorted(variables.items()))
    text = " ".join(words)
    return text if len(text.encode(errors="replace")) <= MAX_SHOWN else ""


def _flag(name: str) -> str:
    return shlex.quote(f"--{name}")


def _check(name: str, value: str) -> None:
    try:
        whole = f"{name}{value}".encode()
    except UnicodeEncodeError as error:
        msg = f"the environment variable {shown(name)} is not UTF-8"
        raise Invalid(msg) from error
    if not name or "=" in name or b"\0" in whole:
        msg = f"the environment variable {shown(name)} has a NUL character, or a name that can't be one"
        raise Invalid(msg)
