"""What a shell offers behind a word: runs, jobs and tags as dstack last saw them, from a file alone."""

import os
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
from click.shell_completion import CompletionItem

MOST = 200
LIMIT = 64 * 1024 * 1024


class _Job(msgspec.Struct, frozen=True):
    job: str
    workflow: str
    status: str


class _Run(msgspec.Struct, frozen=True):
    run: str
    workflow: str
    status: str | None
    submitted_at: str | None
    jobs: tuple[_Job, ...] = ()


class _Known(msgspec.Struct, frozen=True):
    """The part of the file of `cli.summaries` that is of use here."""

    lines: dict[str, _Run] = {}
    tags: tuple[str, ...] = ()


def complete_run(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Runs, the latest first."""
    return [_item(run.run, f"{run.workflow} {run.status or ''}") for run in _runs(_known(ctx), incomplete)][:MOST]


def complete_job(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Runs, and jobs from their first digit on."""
    jobs = (job for run in _known(ctx).lines.values() for job in run.jobs if incomplete)
    found = [_item(job.job, f"{job.workflow} {job.status}") for job in jobs if job.job.startswith(incomplete)]
    return [*complete_run(ctx, param, incomplete), *found][:MOST]


def complete_tag(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Tags."""
    return [CompletionItem(tag) for tag in _known(ctx).tags if tag.startswith(incomplete)]


def _runs(known: _Known, incomplete: str) -> list[_Run]:
    runs = [run for run in known.lines.values() if run.run.startswith(incomplete)]
    return sorted(runs, key=lambda run: run.submitted_at or "", reverse=True)


def _item(word: str, text: str) -> CompletionItem:
    return CompletionItem(word, help=text.strip())


def _known(ctx: click.Context) -> _Known:
    folder = Path(ctx.find_root().params.get("folder") or "")
    files = [path for place in _git_folders(folder) for path in place.glob("dstack/*/summaries.json")]
    try:
        latest = max(files, key=lambda path: path.stat().st_mtime, default=None)
        if latest is None or latest.stat().st_size > LIMIT:
            return _Known()
        return msgspec.json.decode(latest.read_bytes(), type=_Known)
    except (OSError, msgspec.MsgspecError, ValueError):
        return _Known()


def _git_folders(folder: Path) -> Iterator[Path]:
    """The git folder of the repository around `folder` that all its work trees share; no process is started for it."""
    here = Path(os.path.abspath(folder))  # noqa: PTH100 (as the shell sees it)
    for place in (here, *here.parents):
        found = place / ".git"
        if found.is_file():
            found = place / found.read_text(errors="replace").removeprefix("gitdir:").strip()
            common = found / "commondir"
            if common.is_file():
                found = found / common.read_text(errors="replace").strip()
        if found.is_dir():
            yield found
            return
