"""The events in notes: JSON Lines, one event a line, appended to and never rewritten (DESIGN section 5)."""

from typing import TypeVar

import msgspec

from dstack.model.codec import Value, decoder, encode
from dstack.model.job import Reason
from dstack.model.runspec import Utc
from dstack.model.status import Status

LINE_LIMIT = 4 * 1024 * 1024


class Event(Value, frozen=True, kw_only=True, tag_field="event"):
    """What every event carries. `seq` counts per writer and note, from 1; `at` is for display; `message` for people."""

    seq: int
    at: Utc
    message: str = ""


class Planned(Event, frozen=True, kw_only=True, tag="planned"):
    """Controller, on the root: the run's jobs (full ids, in plan order) and the store its bytes go to."""

    generation: int
    jobs: tuple[str, ...]
    store: str


class Resumed(Event, frozen=True, kw_only=True, tag="resumed"):
    """Controller, on the root: a new life of the jobs named (12 digits)."""

    generation: int
    jobs: tuple[str, ...]


class RunFinished(Event, frozen=True, kw_only=True, tag="finished"):
    """Controller, on the root: every job is finished; or the run can't be planned (`reason` invalid)."""

    generation: int
    status: Status
    reason: Reason
    counts: dict[str, int] = {}


class Tagged(Event, frozen=True, kw_only=True, tag="tagged"):
    """Controller, on the root: the run got its tag, as `run --tag` asked, and gets it no second time."""

    generation: int
    tag: str


class JobSummary(Event, frozen=True, kw_only=True, tag="job"):
    """Controller, on the root, at the end: a line per job, for people who read notes with git."""

    generation: int
    job: str
    workflow: str
    status: Status
    reason: Reason
    exit_code: int | None = None


class Assigned(Event, frozen=True, kw_only=True, tag="assigned"):
    """Controller, on a job: this attempt belongs to this instance of this runner. `restore`: a manifest's digest."""

    generation: int
    attempt: int
    runner: str
    instance: str
    nonce: str
    restore: str | None = None


class Revoked(Event, frozen=True, kw_only=True, tag="revoked"):
    """Controller, on a job: nothing this attempt reports counts any more; another may follow.

    `manifest`: the artifacts it left behind, from which the next attempt starts. `begun`: whether it may have run at
    all; one that can't have counts as no try.
    """

    generation: int
    attempt: int
    reason: Reason
    exit_code: int | None = None
    manifest: str | None = None
    begun: bool = True


class Reused(Event, frozen=True, kw_only=True, tag="reused"):
    """Controller, on a job: finished, done and ok, by the equal job (12 digits) of another run (a RunKey's text).

    `manifest` is None where it declares no artifacts. `log` is the key prefix of its log, in the same store.
    """

    generation: int
    run: str
    job: str
    manifest: str | None = None
    log: str | None = None


class Finished(Event, frozen=True, kw_only=True, tag="finished"):
    """Controller, on a job: the one commit point. `attempt` and `runner` are None where nothing ran."""

    generation: int
    status: Status
    reason: Reason
    attempt: int | None = None
    runner: str | None = None
    exit_code: int | None = None
    manifest: str | None = None


class Usage(Value, frozen=True, kw_only=True):
    """What an attempt took: seconds of processor time, peak bytes of memory. None where not measured."""

    cpu_seconds: float | None = None
    memory_peak: int | None = None


class Times(Value, frozen=True, kw_only=True):
    """When each phase began, by the runner's clock; for display, and durations of one runner."""

    preparing: Utc | None = None
    running: Utc | None = None
    uploading: Utc | None = None
    ended: Utc | None = None


class Started(Event, frozen=True, kw_only=True, tag="started"):
    """Runner, on a job: the commands of this attempt are running. `log` is the key prefix of its log."""

    attempt: int
    instance: str
    nonce: str
    log: str


class Ended(Event, frozen=True, kw_only=True, tag="ended"):
    """Runner, on a job: a claim about an attempt. `status` is DONE, FAILED, STOPPED or ABORTED.

    `log_size` in bytes. `manifest` is the digest of the artifact set, also of a failed job. `image` is the digest
    of the image used. `warnings` are sentences for people (a declared artifact that is missing).
    """

    attempt: int
    instance: str
    nonce: str
    status: Status
    reason: Reason
    exit_code: int | None = None
    signal: int | None = None
    oom: bool = False
    times: Times = Times()
    log: str
    log_size: int = 0
    manifest: str | None = None
    artifacts_size: int = 0
    image: str | None = None
    usage: Usage = Usage()
    warnings: tuple[str, ...] = ()


RootEvent = Planned | Resumed | RunFinished | Tagged | JobSummary
ControllerEvent = Assigned | Revoked | Reused | Finished
RunnerEvent = Started | Ended

E = TypeVar("E")


class Parsed(Value, frozen=True, kw_only=True):
    """A note as read: the events known to this version, and a sentence for each line that is broken.

    `lines` counts all lines, so that the next `seq` is `lines + 1` even behind unknown or broken ones.
    """

    events: tuple[Event, ...] = ()
    lines: int = 0
    problems: tuple[str, ...] = ()


_ROOT: msgspec.json.Decoder[RootEvent] = decoder(RootEvent)
_CONTROLLER: msgspec.json.Decoder[ControllerEvent] = decoder(ControllerEvent)
_RUNNER: msgspec.json.Decoder[RunnerEvent] = decoder(RunnerEvent)
_ANY = msgspec.json.Decoder(dict[str, object])


def to_line(event: Event) -> bytes:
    """One line with its newline: sorted keys, the tag under `event`."""
    return encode(event) + b"\n"


def parse_root_note(data: bytes) -> Parsed:
    """The controller's note on a root commit."""
    return _parse(data, _ROOT)


def parse_controller_note(data: bytes) -> Parsed:
    """The controller's note on a job."""
    return _parse(data, _CONTROLLER)


def parse_runner_note(data: bytes) -> Parsed:
    """A runner's note on a job."""
    return _parse(data, _RUNNER)


def _parse(data: bytes, reader: msgspec.json.Decoder[E]) -> Parsed:
    events: list[Event] = []
    problems: list[str] = []
    lines = data.splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if len(line) > LINE_LIMIT:
            problems.append(f"line {number} is {len(line)} bytes long")
            continue
        try:
            event = reader.decode(line)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            problem = _unknown(line) or f"line {number} is no event: {error}"
            if problem != _IGNORED:
                problems.append(problem)
            continue
        if isinstance(event, Event):
            events.append(event)
    return Parsed(events=tuple(events), lines=len(lines), problems=tuple(problems))


_IGNORED = "ignored"
_KNOWN = frozenset(
    {"planned", "resumed", "finished", "tagged", "job", "assigned", "revoked", "reused", "started", "ended"}
)


def _unknown(line: bytes) -> str | None:
    """`ignored` where the line is an event of a later version, None where it is broken."""
    try:
        name = _ANY.decode(line).get("event")
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
    return _IGNORED if isinstance(name, str) and name not in _KNOWN else None
