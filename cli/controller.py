"""`dstack controller`: the controller as a daemon, of the repository around or of many."""

import signal
from pathlib import Path

import click

from cli.daemons import controller_daemon, log_to_stderr, on_signals
from cli.fleet_config import File, Options, Source
from cli.serving import http_option, serving
from cli.session import open_session, set_up
from cli.terminal import tell

EXAMPLE = """\b
Examples:
  dstack controller            # of this repository, until interrupted; several may run
  dstack controller --repo git@github.com:acme/train.git --repo git@github.com:acme/eval.git
  dstack controller --config controller.yaml --check
  dstack controller --http 8080    # for webhooks; behind a proxy: docs/webhooks.md"""


@click.command(epilog=EXAMPLE)
@click.option("--repo", "urls", multiple=True, metavar="URL",
              help="Serve this repository, from anywhere; again for more. Without it, the one around.")  # fmt: skip
@click.option("--config", "file", type=click.Path(path_type=Path), metavar="FILE",
              help="Serve the repositories listed in a file: docs/controller.md.")  # fmt: skip
@click.option("--check", "only_check", is_flag=True, help="Look whether all of --repo or --config can be served; exit.")
@click.option("--poll", type=click.FloatRange(min=0.05), metavar="SECONDS",
              help="How often the state remote is read; otherwise 2, and 5 on GitHub and GitLab.")  # fmt: skip
@http_option
@click.pass_obj
def command(  # noqa: PLR0913 (an argument an option)
    folder: Path,
    *,
    urls: tuple[str, ...],
    file: Path | None,
    only_check: bool,
    poll: float | None,
    http: str | None,
) -> int:
    """Plan runs, place their jobs on runners, and record how they end; until interrupted.

    SIGHUP re-reads the file of --config, as does a change of it, and tries at once what has failed.
    """
    if urls and file:
        msg = "--repo and --config don't go together: list the repository in the file"
        raise click.UsageError(msg)
    if not urls and not file:
        if only_check:
            msg = "--check looks at --repo or --config; for the repository around there is `dstack doctor`"
            raise click.UsageError(msg)
        return _serve_one(folder, poll, http)
    return _serve_many(_source(folder.absolute(), urls, file, poll, http), only_check=only_check)


def _serve_one(folder: Path, poll: float | None, http: str | None) -> int:
    session = open_session(folder)
    seen = set_up(session)
    seen.store()
    log_to_stderr()
    daemon = controller_daemon(session, seen, poll=poll)
    with serving(http, session, seen, daemon) as changed:
        daemon.show(changed)
        on_signals(daemon.stop)
        tell(f"Controller of {session.remote.url}; store {seen.store_url}")
        daemon.run()
    return 0


def _source(base: Path, urls: tuple[str, ...], file: Path | None, poll: float | None, http: str | None) -> Source:
    if file:
        return File(path=base / file, poll=poll, http=http)
    return Options(urls=urls, base=base, poll=poll, http=http)


def _serve_many(source: Source, *, only_check: bool) -> int:
    from cli.fleet import Service  # noqa: PLC0415 (only many need it)
    from cli.fleet_check import check  # noqa: PLC0415 (likewise)
    from cli.fleet_door import HttpDoor  # noqa: PLC0415 (likewise)
    from controller.fleet import Fleet  # noqa: PLC0415 (likewise)

    if only_check:
        return check(source.read())
    log_to_stderr()
    fleet = Fleet()
    door = HttpDoor(fleet)
    service = Service(source, fleet, door)
    on_signals(service.stop)
    on_signals(service.reload, (signal.SIGHUP,))
    service.begin()
    tell(f"Controller of {', '.join(one.name for one in fleet.summary()) or 'no repository yet'}")
    if left := service.run():
        tell(f"Ended without waiting longer for {', '.join(left)}")
    return 0
