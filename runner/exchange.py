"""One exchange with the state remote: what is assigned is read, and what is to be told is appended. For one thread."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from dstack.ledger.ledger import Ledger
from dstack.model import keys
from dstack.model.errors import DstackError, Invalid, Unavailable
from dstack.model.events import Ended, Started
from dstack.model.job import Job, Reason, from_bytes
from dstack.model.observation import Assignments, Observation, Pushed, SetRegistration
from dstack.model.pool import Attempt, Registration
from dstack.model.refs import RunKey, assignment
from dstack.store.store import Store
from runner import reports
from runner.facts import Given
from runner.held import Failure
from runner.judge import Judge
from runner.registering import Claims
from runner.reports import Report
from runner.rival import look

LOG = logging.getLogger(__name__)

_KEY = re.compile(r"[0-9a-f]{12}\.[0-9]{1,9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be told: events, and the registration to write (or None)."""

    reports: tuple[Report, ...] = ()
    registration: Registration | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanged:
    """What came of it. `error`: the remote was away, before or (`seen` is set) while pushing.

    `claims`: whose our name is. `written`: reports that the remote has now. `refused`: runs whose note was not won.
    """

    seen: Observation | None = None
    given: Mapping[str, Given] = field(default_factory=dict)
    whole: bool = False
    pushed: bool = False
    claims: Claims | None = None
    written: tuple[Report, ...] = ()
    refused: Mapping[RunKey, str] = field(default_factory=dict)
    error: DstackError | None = None


class Exchange:
    """Remembers what it has read, so that what did not change isn't read again."""

    def __init__(
        self, ledger: Ledger, registration: Registration, open_store: Callable[[str], Store], judge: Judge
    ) -> None:
        """`registration`: ours. `judge`: what may be executed."""
        self._judge = judge
        self._ledger = ledger
        self._registration = registration
        self._runner = registration.runner
        self._open_store = open_store
        self._jobs: dict[str, Job | Failure] = {}
        self._told: set[str] = set()

    def __call__(self, wish: Wish) -> Exchanged:
        """Read, then tell. Raises nothing: whatever goes wrong is tried again."""
        try:
            return self._read_and_tell(wish)
        except DstackError as error:
            return Exchanged(error=error)
        except Exception as error:
            LOG.exception("an exchange with the state remote failed by an error of dstack's own")
            return Exchanged(error=Unavailable(f"an error of dstack's own: {error}"))

    def _read_and_tell(self, wish: Wish) -> Exchanged:
        seen, ours = self._ledger.observe(), self._registration.repository
        if seen.repository != ours:
            msg = f"the state remote isn't that of the dstack repository {ours} any more (it is {seen.repository})"
            raise Unavailable(msg)
        try:
            return self._tell(wish, seen)
        except DstackError as error:
            refused = dict.fromkeys((one.run for one in wish.reports), str(error))
            return self._answer(seen, pushed=True, refused=refused, error=error)

    def _tell(self, wish: Wish, seen: Observation) -> Exchanged:
        written = [one for one in wish.reports if reports.is_written(one, seen, self._runner)]
        new = reports.unwritten(wish.reports, seen, self._runner)
        notes = reports.changes(new, seen, self._runner)
        if not notes and wish.registration is None:
            return self._answer(seen, written=written)
        registration = [SetRegistration(registration=wish.registration)] if wish.registration else []
        pushed = self._ledger.commit([*notes, *registration], seen, atomic=False)
        refused = {note.key: _why(pushed, note.ref) for note in notes if not pushed.won_ref(note.ref)}
        written += [one for one in new if one.run not in refused]
        # Whether the name is ours is read, not concluded.
        after = self._ledger.observe() if wish.registration else seen
        return self._answer(after, pushed=True, written=written, refused=refused)

    def _answer(
        self,
        seen: Observation,
        *,
        pushed: bool = False,
        written: Sequence[Report] = (),
        refused: Mapping[RunKey, str] | None = None,
        error: DstackError | None = None,
    ) -> Exchanged:
        assignments = seen.assignments.get(self._runner)
        self._judge.look(seen)
        return Exchanged(
            seen=seen,
            given=self._given(assignments, seen) if assignments else {},
            whole=_is_whole(assignments, seen, self._runner),
            pushed=pushed,
            claims=look(seen, self._registration, self._open_store),
            written=tuple(written),
            refused=refused or {},
            error=error,
        )

    def _given(self, assignments: Assignments, seen: Observation) -> dict[str, Given]:
        usable = {key: one for key, one in assignments.attempts.items() if self._is_usable(key, one)}
        oids = {assignments.jobs[key] for key in usable}
        self._jobs = {oid: self._jobs[oid] if oid in self._jobs else self._job(oid) for oid in oids}
        return {key: self._one(one, assignments.jobs[key], seen) for key, one in usable.items()}

    def _one(self, attempt: Attempt, oid: str, seen: Observation) -> Given:
        notes = seen.notes_of(RunKey.from_text(attempt.run), self._runner)
        mine = [
            event
            for event in (notes.on(oid).events if notes else ())
            if isinstance(event, Started | Ended)
            and (event.attempt, event.instance, event.nonce) == (attempt.attempt, attempt.instance, attempt.nonce)
        ]
        ended = next((event for event in mine if isinstance(event, Ended)), None)
        started = any(isinstance(event, Started) for event in mine)
        job = self._judge.verdict(attempt, oid, self._jobs[oid], seen)
        if isinstance(job, Failure) and job.reason is Reason.SIGNATURE:
            # Of what isn't trusted nothing is taken that says where to write.
            attempt = replace(attempt, log=keys.log(attempt.run, attempt.job, attempt.attempt))
        return Given(attempt=attempt, oid=oid, job=job, started=started, ended=ended)

    def _is_usable(self, key: str, attempt: Attempt) -> bool:
        """Names of files, refs and keys are made of these: what is odd is left to the controller's patience."""
        try:
            RunKey.from_text(attempt.run)
            if _KEY.fullmatch(key):
                return True
            problem = "it is not named <job>.<attempt>"
        except Invalid as error:
            problem = str(error)
        if key not in self._told:
            self._told.add(key)
            LOG.error("the assigned attempt %r can't be used: %s", key, problem)
        return False

    def _job(self, oid: str) -> Job | Failure:
        try:
            data = self._ledger.job(oid)
            if data is not None:
                return from_bytes(data)
            message = f"the job object {oid} is missing from the state remote"
        except Invalid as error:
            message = str(error)
        return Failure(reason=Reason.INVALID, message=message)


def _is_whole(assignments: Assignments | None, seen: Observation, runner: str) -> bool:
    """Whether what is absent is gone: not where the ref, or a part of it, could not be read."""
    if assignments is None:
        return assignment(runner) not in seen.refs
    return not assignments.problems


def _why(pushed: Pushed, ref: str) -> str:
    return pushed.reasons.get(ref) or "another writer was first"
