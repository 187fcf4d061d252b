"""Reuse: the key by which a finished job stands in for an equal one, and what differs where none does.

What a job's result depends on is in the key (DESIGN section 10); where and how long it runs is not.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from dstack.model import keys
from dstack.model.codec import Value, encode, lean
from dstack.model.events import Finished, Reused
from dstack.model.job import Job, Shell, matrix_text
from dstack.model.runspec import RunSpec, Via
from dstack.model.states import JobState

SHOWN_TEXT = 60
SHOWN_DIFFERENCES = 4


class Origin(Value, frozen=True, kw_only=True):
    """Artifacts that a job starts from: whose they are, where they appear, their manifest's digest (empty: none).

    `tag` is set where they are a tag's; what the tag is called is in no key.
    """

    workflow: str
    matrix: dict[str, str] = {}
    under: str = ""
    manifest: str = ""
    tag: str = ""

    @property
    def title(self) -> str:
        """For people: `prepare`, `prepare[seed=1]`, `prepare:latest`."""
        values = f"[{matrix_text(self.matrix)}]" if self.matrix else ""
        return f"{self.workflow}{values}" + (f":{self.tag}" if self.tag else "")


class Parts(Value, frozen=True, kw_only=True):
    """The parts of a key, by name. `content`: the digest of the repository's files that the workflow depends on.

    `variables` holds the matrix values too; `matrix` says which they are.
    """

    version: int = 1
    image: str | None = None
    shell: Shell = Shell.SH
    commands: tuple[str, ...]
    environment: dict[str, str] = {}
    variables: dict[str, str] = {}
    matrix: dict[str, str] = {}
    working_dir: str = "."
    artifacts: tuple[str, ...] = ()
    content: str
    inputs: tuple[Origin, ...] = ()

    @property
    def key(self) -> str:
        """The key: SHA-256 in hexadecimal digits."""
        inputs = tuple(lean(replace(one, tag="")) for one in self.inputs)
        return hashlib.sha256(encode(lean(replace(self, inputs=inputs)))).hexdigest()


class Hint(Value, frozen=True, kw_only=True):
    """`cache/<key>` in the store: which job (12 digits) of which run (a RunKey's text) answers this key.

    Only a hint: the controller's own note decides.
    """

    version: int = 1
    run: str
    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """A key that may be answered in the store at this URL."""

    store: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The job that stands in: of a run (a RunKey's text), 12 digits; its manifest's digest, and its log's key.

    `manifest` is None where it declared no artifacts; `log` where its log is in another store.
    """

    run: str
    job: str
    manifest: str | None = None
    log: str | None = None


def parts_of(job: Job, content: str, inputs: Sequence[Origin]) -> Parts:
    """The parts of a job's key, from the digest of its workflow's files and what it starts from, in order."""
    return Parts(
        image=job.image,
        shell=job.shell,
        commands=job.commands,
        environment=job.environment,
        variables=job.variables,
        matrix=job.matrix,
        working_dir=job.working_dir,
        artifacts=job.artifacts,
        content=content,
        inputs=tuple(inputs),
    )


# By a job's 12 digits: the job, and the digest of its manifest (None where it has none); or None while it isn't DONE.
Made = Callable[[str], tuple[Job, str | None] | None]


def job_parts(job: Job, contents: Mapping[str, str], made: Made) -> Parts | None:
    """The parts of a job's key; None while a job it needs is not DONE, or where its files' digest isn't known."""
    content = contents.get(job.workflow)
    inputs = _inputs(job, made)
    return None if content is None or inputs is None else parts_of(job, content, inputs)


def _inputs(job: Job, made: Made) -> tuple[Origin, ...] | None:
    found = [Origin(workflow=one.workflow, under=one.under, manifest=one.manifest, tag=one.tag) for one in job.tagged]
    for need in job.needs:
        known = made(need.job)
        if known is None:
            return None
        needed, manifest = known
        found.append(Origin(workflow=needed.workflow, matrix=needed.matrix, under=need.under, manifest=manifest or ""))
    return tuple(found)


def may_reuse(spec: RunSpec, job: Job) -> bool:
    """Whether a finished job may stand in for this one at all: the named workflow of a scheduled run always runs."""
    scheduled = spec.via is Via.SCHEDULE and job.workflow == spec.workflow
    return job.cache and spec.options.cache and not scheduled


def answer_of(run: str, job: str, state: JobState) -> Answer | None:
    """A job that is DONE, as an answer. One that was reused itself passes on whose work it is."""
    if isinstance(state.finished, Reused):
        reused = state.finished
        return Answer(run=reused.run, job=reused.job, manifest=reused.manifest, log=reused.log)
    return finished_answer(run, job, state.finished) if state.finished else None


def finished_answer(run: str, job: str, finished: Finished) -> Answer:
    """A job that was DONE by an attempt of its own, as an answer."""
    log = keys.log(run, job, finished.attempt) if finished.attempt else None
    return Answer(run=run, job=job, manifest=finished.manifest, log=log)


def run_name(run: str) -> str:
    """For people: the name in a RunKey's text. A note may hold anything."""
    return run.partition(".")[0]


def differences(before: Parts, now: Parts) -> tuple[str, ...]:
    """What differs, for people; the nearest to their hands first. Empty where the keys are the same."""
    return () if before.key == now.key else tuple(_differences(before, now))


def difference_text(found: Sequence[str]) -> str:
    """The first few of them in one line."""
    more = len(found) - SHOWN_DIFFERENCES
    return ", ".join(found[:SHOWN_DIFFERENCES]) + (f" and {more} more" if more > 0 else "")


def _differences(before: Parts, now: Parts) -> Iterator[str]:
    yield from _mapping("variable", before.variables, now.variables)
    if before.variables == now.variables and before.matrix != now.matrix:
        yield "which variables are the matrix's"
    yield from _mapping("env", before.environment, now.environment)
    yield from _one("image", before.image, now.image)
    yield from _one("shell", before.shell, now.shell)
    if before.commands != now.commands:
        yield "commands"
    yield from _one("working-dir", before.working_dir, now.working_dir)
    if before.artifacts != now.artifacts:
        yield "artifacts"
    if before.content != now.content:
        yield "files of the repository"
    yield from _of_inputs(before.inputs, now.inputs)
    if before.version != now.version:
        yield "dstack's own rules for reuse"


def _of_inputs(before: tuple[Origin, ...], now: tuple[Origin, ...]) -> Iterator[str]:
    old, new = {_name(one): one for one in before}, {_name(one): one for one in now}
    different = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    for name in different:
        yield f"input {(new.get(name) or old[name]).title}"
    if not different and before != now:
        yield "the order of depends-on"


def _name(origin: Origin) -> tuple[str, str, str]:
    return origin.workflow, matrix_text(origin.matrix), origin.tag


def _mapping(what: str, before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            yield _one_text(f"{what} {name}", before.get(name), now.get(name))


def _one(what: str, before: str | None, now: str | None) -> Iterator[str]:
    if before != now:
        yield _one_text(what, before, now)


def _one_text(what: str, before: str | None, now: str | None) -> str:
    return f"{what}: {_shown(before)} → {_shown(now)}"


def _shown(text: str | None) -> str:
    if text is None:
        return "(none)"
    if not text:
        return "(empty)"
    return text if len(text) <= SHOWN_TEXT else f"{text[: SHOWN_TEXT - 1]}…"
