"""Which run or job a word means: an exact name beats a prefix, an ambiguous prefix names its candidates."""

import difflib
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cli.lines import JobLine, RunLine
from dstack.model import refs
from dstack.model.errors import Invalid
from dstack.model.refs import RunKey

SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """A run, or one job of it. `exact`: the name was given whole."""

    run: RunLine
    job: JobLine | None
    exact: bool

    @property
    def jobs(self) -> tuple[JobLine, ...]:
        """The job, or all jobs of the run."""
        return (self.job,) if self.job else self.run.jobs

    @property
    def name(self) -> str:
        """What was meant, whole."""
        return self.job.job if self.job else self.run.run


def pick(word: str, runs: Sequence[RunLine], *, jobs: bool = True) -> Picked:
    """The run (or, with `jobs`, job) that is meant. Raises Invalid."""
    found = list(candidates(word, runs, jobs=jobs))
    exact = [one for one in found if one.exact]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if not found:
        raise Invalid(_unknown(word, runs, jobs=jobs))
    names = sorted(one.name for one in found)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    msg = f"{word!r} is the beginning of {', '.join(names[:SHOWN])}{more}: write more of the name"
    raise Invalid(msg)


def readable(picked: Picked, remote: str) -> Picked:
    """What was picked. Raises Invalid, with the way out, where it is no run that can be executed here."""
    if picked.run.problem:
        msg = f"{picked.run.run} is no run of this dstack repository: {way_out(picked.run, remote)}"
        raise Invalid(msg)
    return picked


def way_out(run: RunLine, remote: str) -> str:
    """What is wrong with a run that is never executed, and how to be rid of it. `remote`: what git calls it."""
    branch = refs.run_branch(run.run).removeprefix("refs/heads/")
    return f"{run.problem}. Nobody executes it; `git push {shlex.quote(remote)} --delete {branch}` removes it"


def candidates(word: str, runs: Iterable[RunLine], *, jobs: bool) -> Iterable[Picked]:
    """All runs and jobs that may be meant."""
    for run in runs:
        if word and (run.run.startswith(word) or (run.root and str(RunKey.of(run.run, run.root)) == word)):
            yield Picked(run=run, job=None, exact=len(word) >= len(run.run))
        for job in run.jobs if jobs and word else ():
            if job.job.startswith(word):
                yield Picked(run=run, job=job, exact=job.job == word)


def _unknown(word: str, runs: Sequence[RunLine], *, jobs: bool) -> str:
    near = difflib.get_close_matches(word, [run.run for run in runs], 1)
    hint = f"did you mean {near[0]!r}?" if near else "`dstack status --all` lists them"
    return f"there is no run{' or job' if jobs else ''} {word!r}: {hint}"
