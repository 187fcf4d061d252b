"""`dstack artifacts`: what a run or job has made, listed or downloaded with every byte verified."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec

from cli.ago import size_text
from cli.archived import find
from cli.completing import complete_job
from cli.lines import JobLine
from cli.pick import Picked, readable
from cli.progress import progress_bar
from cli.session import open_session
from cli.summaries import load_runs
from cli.table import Column, show_table
from cli.terminal import clean, say, tell
from dstack.model.errors import Invalid
from dstack.model.manifest import Manifest
from dstack.model.status import Status
from dstack.store.artifacts import Listed, download, listing, load, matching
from dstack.store.store import Store

EXAMPLE = """\b
Examples:
  dstack artifacts fast-rabbit-1
  dstack artifacts fast-rabbit-1 models 'reports/*.json' -o out
  dstack artifacts 3f2a --total"""


class ArtifactLine(msgspec.Struct, frozen=True, kw_only=True):
    """`artifacts --json`; `mode` in octal digits."""

    job: str
    artifact: str
    file: str
    size: int
    mode: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSet:
    """The artifact set of a job."""

    job: JobLine
    manifest: Manifest


@click.command(epilog=EXAMPLE)
@click.argument("name", metavar="RUN|JOB", shell_complete=complete_job)
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Download into DIR.")
@click.option("-t", "--total", is_flag=True, help="One line an artifact: how many files, how large in all.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(  # noqa: PLR0913 (one for each option)
    folder: Path, *, name: str, paths: tuple[str, ...], output: Path | None, total: bool, as_json: bool
) -> None:
    """List the artifacts of a run or job, or download them. PATH limits it to a file, folder or glob."""
    session = open_session(folder)
    seen = session.poll()
    picked = readable(find(session, seen, load_runs(session, seen), name), session.remote.name)
    store = seen.store(picked.run.store)
    sets = job_sets(store, picked)
    if output:
        fetch(store, sets, folder / output, paths)
    lines = list(_lines(sets, paths))
    _check_found(lines, picked, paths)
    if as_json:
        say(msgspec.json.encode(lines).decode())
    elif not output:
        _show(lines, total=total, several=len(sets) > 1)


def job_sets(store: Store, picked: Picked) -> list[JobSet]:
    """The sets of all jobs that have one. Says of those of failed jobs that they are."""
    jobs = [job for job in picked.jobs if job.artifacts]
    for job in jobs:
        if job.status.finished and job.status is not Status.DONE:
            tell(f"{clean(job.title)} ({job.job}) is {job.status}: its artifacts are what it left behind.")
    return [JobSet(job=job, manifest=load(store, (job.artifacts or "").rpartition("/")[2])) for job in jobs]


def fetch(store: Store, sets: Sequence[JobSet], output: Path, paths: tuple[str, ...]) -> None:
    """Download; sets of which two have a path in common go into a folder each. Raises Invalid, Failed."""
    apart = _collide(sets, paths)
    for one in sets:
        place = output / f"{one.job.workflow}-{one.job.job}" if apart else output
        with progress_bar(one.job.title) as progress:
            files = download(store, one.manifest, place, only=paths, progress=progress)
        if files:
            size = size_text(sum(file.size for file in files))
            tell(f"{clean(one.job.title)}: {len(files)} file{'' if len(files) == 1 else 's'}, {size} → {place}")


def _collide(sets: Sequence[JobSet], paths: tuple[str, ...]) -> bool:
    counts = Counter(file.path for one in sets for file in _listed(one, paths))
    return any(count > 1 for count in counts.values())


def _listed(one: JobSet, paths: tuple[str, ...]) -> tuple[Listed, ...]:
    return listing(matching(one.manifest, paths))


def _lines(sets: Sequence[JobSet], paths: tuple[str, ...]) -> Iterator[ArtifactLine]:
    for one in sets:
        for file in _listed(one, paths):
            yield ArtifactLine(
                job=one.job.job,
                artifact=file.artifact,
                file=file.file,
                size=file.size,
                mode=f"{file.mode:o}",
                sha256=file.sha256,
            )


def _check_found(lines: Sequence[ArtifactLine], picked: Picked, paths: tuple[str, ...]) -> None:
    if lines:
        return
    if paths:
        msg = f"no artifact matches {', '.join(paths)}: `dstack artifacts {picked.name}` lists all"
        raise Invalid(msg)
    waiting = any(not job.status.finished for job in picked.jobs)
    tell(f"{picked.name} has {'not made any artifacts yet' if waiting else 'no artifacts'}.")


def _show(lines: Sequence[ArtifactLine], *, total: bool, several: bool) -> None:
    columns = [Column(title="ARTIFACT"), Column(title="FILES" if total else "FILE"), Column(title="SIZE")]
    rows = _totals(lines) if total else [(one.job, one.artifact, one.file, size_text(one.size)) for one in lines]
    if not rows:
        return
    if several:
        show_table([Column(title="JOB", least=12), *columns], rows)
    else:
        show_table(columns, [row[1:] for row in rows])


def _totals(lines: Sequence[ArtifactLine]) -> list[tuple[str, ...]]:
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for one in lines:
        count, size = sums.get((one.job, one.artifact), (0, 0))
        sums[one.job, one.artifact] = (count + 1, size + one.size)
    return [(job, artifact, str(count), size_text(size)) for (job, artifact), (count, size) in sums.items()]
