"""The small records of the pool and the repository: assignments, registrations, the repository's id, its settings.

They are written without a history: each is a projection or a statement of now, and what was is in the notes.
"""

import re
from dataclasses import dataclass, field

from dstack.ledger.objects import FILE, FOLDER, Entry, Objects
from dstack.model.codec import decode, encode
from dstack.model.errors import Invalid
from dstack.model.observation import Assignments, SetAssignments
from dstack.model.pool import Attempt, Registration

JOB_FILE = b"job.json"
ATTEMPT_FILE = b"attempt.json"
RUNNER_FILE = b"runner.json"
ID_FILE = b"id"
CONFIG_FILE = b"config.yaml"

_RECORD_LIMIT = 1024 * 1024
_REPOSITORY = re.compile(r"[0-9a-z-]{8,64}")

_Held = tuple[Attempt, str]


@dataclass(slots=True)
class AssignmentsReader:
    """Reads assignment refs; an attempt whose subtree was read before is not read again."""

    _memory: dict[str, dict[str, _Held]] = field(default_factory=dict)

    def read(self, objects: Objects, runner: str, oid: str) -> Assignments:
        """The attempts at the commit `oid`. What can't be read is left out and told in `problems`. Raises Damaged."""
        try:
            tree = objects.tree(objects.commit(oid).tree)
        except Invalid as error:
            return Assignments(oid=oid, attempts={}, jobs={}, problems=(str(error),))
        known, memory = self._memory.get(runner, {}), dict[str, _Held]()
        problems: list[str] = []
        for name, entry in tree.items():
            try:
                memory[entry.oid] = known.get(entry.oid) or _read_attempt(objects, name, entry)
            except Invalid as error:
                problems.append(f"{name.decode(errors='replace')}: {error}")
        self._memory[runner] = memory
        attempts = {attempt.key: attempt for attempt, _ in memory.values()}
        jobs = {attempt.key: job for attempt, job in memory.values()}
        return Assignments(oid=oid, attempts=attempts, jobs=jobs, problems=tuple(problems))

    def keep(self, runners: set[str]) -> None:
        """Forget all runners but these."""
        for gone in self._memory.keys() - runners:
            del self._memory[gone]


def write_assignments(objects: Objects, change: SetAssignments) -> str:
    """The id of a commit with exactly these attempts. Raises Invalid where a job's object isn't in the cache."""
    tree = {key.encode(): _write_attempt(objects, change.jobs[key], one) for key, one in change.attempts.items()}
    count = len(tree)
    message = f"Assign {count} attempt{'' if count == 1 else 's'} to {change.runner}"
    return objects.write_commit(objects.write_tree(tree), [], message)


def read_registration(objects: Objects, runner: str, oid: str) -> Registration:
    """Raises Invalid, Damaged."""
    data = _file_of(objects, oid, RUNNER_FILE)
    registration = decode(data, Registration, RUNNER_FILE.decode(), limit=_RECORD_LIMIT)
    if registration.runner != runner:
        msg = f"it is the registration of {registration.runner!r}"
        raise Invalid(msg)
    return registration


def write_registration(objects: Objects, registration: Registration) -> str:
    """The id of the commit."""
    message = f"Runner {registration.runner} on {registration.host} is {registration.state}"
    return _write_one(objects, RUNNER_FILE, encode(registration), message)


def read_id(objects: Objects, oid: str) -> str:
    """The repository's id. Raises Invalid, Damaged."""
    text = _file_of(objects, oid, ID_FILE).decode(errors="replace").strip()
    if not _REPOSITORY.fullmatch(text):
        msg = f"{text[:80]!r} is no id of a dstack repository"
        raise Invalid(msg)
    return text


def write_id(objects: Objects, repository: str) -> str:
    """The id of the commit."""
    return _write_one(objects, ID_FILE, f"{repository}\n".encode(), f"This is the dstack repository {repository}")


def read_config(objects: Objects, oid: str) -> bytes:
    """The text of `config.yaml`. Raises Invalid, Damaged."""
    return _file_of(objects, oid, CONFIG_FILE)


def write_config(objects: Objects, config: bytes, base: str | None, message: str) -> str:
    """The id of a commit with this `config.yaml`, on top of `base`, whose other files stay."""
    tree = dict(objects.tree(objects.commit(base).tree)) if base else {}
    tree[CONFIG_FILE] = Entry(FILE, objects.write_blob(config))
    return objects.write_commit(objects.write_tree(tree), [base] if base else [], f"{message} [skip ci]")


def _read_attempt(objects: Objects, name: bytes, entry: Entry) -> _Held:
    tree = objects.tree(entry.oid)
    if ATTEMPT_FILE not in tree or JOB_FILE not in tree:
        msg = "job.json or attempt.json is missing"
        raise Invalid(msg)
    data = objects.blob(tree[ATTEMPT_FILE].oid, "attempt.json", limit=_RECORD_LIMIT)
    attempt, job = decode(data, Attempt, "attempt.json"), tree[JOB_FILE].oid
    if attempt.key.encode() != name or not job.startswith(attempt.job[:12]):
        msg = f"attempt.json is that of {attempt.key}, job.json that of {job[:12]}"
        raise Invalid(msg)
    return attempt, job


def _write_attempt(objects: Objects, job: str, attempt: Attempt) -> Entry:
    if not objects.has(job):
        msg = f"the job object {job} of {attempt.key} is in no notes"
        raise Invalid(msg)
    tree = {JOB_FILE: Entry(FILE, job), ATTEMPT_FILE: Entry(FILE, objects.write_blob(encode(attempt)))}
    return Entry(FOLDER, objects.write_tree(tree))


def _file_of(objects: Objects, oid: str, name: bytes) -> bytes:
    tree = objects.tree(objects.commit(oid).tree)
    if name not in tree:
        msg = f"{name.decode()} is missing"
        raise Invalid(msg)
    return objects.blob(tree[name].oid, name.decode(), limit=_RECORD_LIMIT)


def _write_one(objects: Objects, name: bytes, data: bytes, message: str) -> str:
    return objects.write_commit(objects.write_tree({name: Entry(FILE, objects.write_blob(data))}), [], message)
