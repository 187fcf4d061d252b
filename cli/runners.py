"""`dstack runners`: the machines of the pool, and which of them live."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from cli.ago import ago, size_text
from cli.reading import Reader
from cli.session import Seen, open_session
from cli.table import Column, show_table
from cli.terminal import say, tell
from dstack.model.errors import DstackError
from dstack.model.pool import Phase, Registration, RunnerState
from dstack.store import heartbeats
from dstack.store.heartbeats import Heartbeats
from dstack.store.heartbeats import Seen as Beat
from dstack.store.store import Store

EXAMPLE = """\b
Example:
  dstack runners --json | jq -r '.[] | select(.status == "live") | .runner'"""

COLUMNS = (
    Column(title="RUNNER", least=12),
    Column(title="HOST", least=8, rank=3),
    Column(title="CPU", rank=6),
    Column(title="MEMORY", least=8, rank=5),
    Column(title="GPU", rank=2),
    Column(title="LABELS", rank=1),
    Column(title="VOLUMES", rank=0),
    Column(title="JOBS", rank=7),
    Column(title="STATUS", least=8),
    Column(title="UPDATED", least=10, rank=4),
)
LOST = "lost"
SENTENCE = 200


class RunnerLine(msgspec.Struct, frozen=True, kw_only=True):
    """`runners --json`. `status`: live, draining, lost or gone. `jobs` are those in hand; `memory` in bytes.

    `pause`: why a live one begins nothing now, empty while it does; `pauses`: the same of single executors, by name.
    `unlimited`: limits that its Docker takes and does not enforce. `volumes`: names of the folders that it offers.
    `interruptible`: it can be taken away at any time.
    """

    runner: str
    host: str
    status: str
    cpu: float
    memory: int
    gpus: tuple[str, ...] = ()
    labels: tuple[str, ...]
    executors: tuple[str, ...]
    jobs: tuple[str, ...]
    updated_at: datetime
    pause: str = ""
    pauses: dict[str, str] = {}
    unlimited: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    interruptible: bool = False


@click.command(epilog=EXAMPLE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(folder: Path, *, as_json: bool) -> None:
    """Show the machines of the pool."""
    reader = Reader(open_session(folder))
    seen = reader.session.poll()
    lines = runner_lines(reader, seen)
    if as_json:
        say(msgspec.json.encode(lines).decode())
        return
    now = datetime.now(UTC)
    if lines:
        show_table(COLUMNS, [row(line, now) for line in lines])
        for warning in unheeded(lines):
            tell(warning)
    else:
        tell("No runner has registered: start one with `dstack up`, or `dstack-runner start` on any machine.")


def runner_lines(reader: Reader, seen: Seen) -> list[RunnerLine]:
    """All registered runners but the private ones of `--local` runs, by name."""
    stores = _Stores(seen, reader.heartbeats)
    registrations = [one for one in reader.registrations(seen).values() if not one.private]
    return [_line(one, stores.of(one.store), seen.settings.lease) for one in sorted(registrations, key=_name)]


def runner_line(registration: Registration, seen: Seen) -> RunnerLine:
    """One runner."""
    return _line(registration, _Stores(seen, heartbeats.read_runners).of(registration.store), seen.settings.lease)


def _name(registration: Registration) -> str:
    return registration.runner


class _Stores:
    """The heartbeats in each store that a runner writes to; one that is away hides its own runners only."""

    def __init__(self, seen: Seen, read: Callable[[Store], Heartbeats]) -> None:
        """Nothing is read yet."""
        self._seen, self._read = seen, read
        self._known: dict[str, tuple[Store | None, Mapping[tuple[str, str], Beat]]] = {}

    def of(self, url: str) -> tuple[Store | None, Mapping[tuple[str, str], Beat]]:
        """The store and its heartbeats; no store where it can't be read."""
        if url not in self._known:
            try:
                store = self._seen.store(url)
                self._known[url] = (store, self._read(store).seen)
            except DstackError as error:
                tell(f"heartbeats can't be read: {error}")
                self._known[url] = (None, {})
        return self._known[url]


def _line(one: Registration, where: tuple[Store | None, Mapping[tuple[str, str], Beat]], lease: float) -> RunnerLine:
    store, beats = where
    beat = beats.get((one.runner, one.instance))
    held = sorted(beat.heartbeat.attempts.items()) if beat else []
    told = beat.heartbeat if beat and beat.heartbeat.start == one.start else None
    return RunnerLine(
        runner=one.runner,
        host=one.host,
        status=_status(one, beat, store, lease),
        cpu=one.capacity.cpu,
        memory=one.capacity.memory,
        gpus=tuple(gpu.name for gpu in one.capacity.gpus),
        labels=one.labels,
        executors=one.executors,
        jobs=tuple(key.partition(".")[0] for key, phase in held if phase is not Phase.ENDED),
        updated_at=max(beat.modified, one.at) if beat else one.at,
        pause=told.pause[:SENTENCE] if told else "",
        pauses={name: why[:SENTENCE] for name, why in told.pauses.items()} if told else {},
        unlimited=told.unlimited if told else (),
        volumes=one.volumes,
        interruptible=one.interruptible,
    )


def _status(one: Registration, beat: Beat | None, store: Store | None, lease: float) -> str:
    """By the store's own clock, for display only: the controller judges by changes it sees."""
    if one.state is RunnerState.GONE:
        return str(one.state)
    if store is None or beat is None or (store.now() - beat.modified).total_seconds() > lease:
        return LOST
    return str(one.state)


def idle(line: RunnerLine) -> list[str]:
    """What it begins nothing of now, and why, for people."""
    return [line.pause] if line.pause else [f"no {name} jobs: {why}" for name, why in sorted(line.pauses.items())]


def unheeded(lines: Iterable[RunnerLine]) -> list[str]:
    """Which live runners' Docker does not enforce which limits: sentences."""
    return [
        f"Docker on {line.runner} does not enforce limits on {', '.join(line.unlimited)}: jobs there can use more than "
        "they ask for (`dstack doctor` on that machine says more)"
        for line in lines
        if line.unlimited and line.status == "live"
    ]


def _manner(line: RunnerLine) -> list[str]:
    return ["interruptible"] if line.interruptible and line.status != RunnerState.GONE else []


def row(line: RunnerLine, now: datetime) -> list[str]:
    """Its cells, by COLUMNS."""
    return [
        line.runner,
        line.host,
        f"{line.cpu:g}",
        size_text(line.memory),
        str(len(line.gpus)) if line.gpus else "",
        ",".join(line.labels),
        ",".join(line.volumes),
        str(len(line.jobs)),
        ", ".join([line.status, *_manner(line), *(idle(line) if line.status == "live" else [])]),
        ago(line.updated_at, now),
    ]
