"""`dstack init`: sets up a repository. Safe to run again: it does what is missing."""

import os
from functools import partial
from pathlib import Path

import click
from msgspec.structs import replace

from cli.checks import Result, push_check, store_check
from cli.session import Seen, Session, open_session, set_up
from cli.shared_settings import change_settings
from cli.terminal import say
from dstack.ledger import git
from dstack.ledger.access import keep_credentials
from dstack.ledger.address import parse_address
from dstack.ledger.code import CodeRepository, find_code
from dstack.ledger.remote import choose_remote
from dstack.model.errors import Failed, Invalid
from dstack.model.settings import Settings
from dstack.model.workflows import PATH, parse_workflows
from dstack.store.location import check_url, default_url, open_store

EXAMPLE = """\b
Examples:
  dstack init
  dstack init --store file:///mnt/shared/dstack
  dstack init --store s3://bucket/prefix --endpoint-url https://s3.example.org
  dstack init --remote https://git.example.org/state.git    # keep the state in a repository apart
  dstack init --webhook https://dstack.example.org          # where the controller is reached"""

SAMPLE = """\
# Workflows: `dstack run hello`, `dstack run hello --who you`. All keys: docs/workflows.md
workflows:
  - name: hello
    help: Say hello, and write it to a file
    commands:
      - echo "hello from $run_name"
      - mkdir -p out && date > out/when.txt
    artifacts:
      - out
"""


@click.command(epilog=EXAMPLE)
@click.option(
    "--store",
    metavar="URL",
    help="Where logs and artifacts go: file:///path or s3://bucket/prefix. By default in your data folder.",
)
@click.option("--endpoint-url", metavar="URL", help="The S3 server, where it isn't Amazon's: https://s3.example.org.")
@click.option("--region", metavar="NAME", help="The region of the bucket.")
@click.option("--copied", is_flag=True, help="All of the store before was copied there: find earlier runs there too.")
@click.option(
    "--remote",
    metavar="NAME|URL|PATH",
    help="The state remote: a git remote's name, a URL, a path, or `.` for this one.",
)
@click.option(
    "--webhook",
    is_flag=False,
    flag_value="",
    metavar="[URL]",
    help="Have GitHub, GitLab or Gitea tell the controller at URL of pushes, and show there how runs end.",
)
@click.pass_obj
def command(  # noqa: PLR0913 (a flag each)
    folder: Path,
    *,
    store: str | None,
    endpoint_url: str | None,
    region: str | None,
    copied: bool,
    remote: str | None,
    webhook: str | None,
) -> None:
    """Set up a repository: id, store, access check, a sample workflow if there is none."""
    public = _public(webhook)
    wanted = _wanted(store, endpoint_url, region)
    if copied and not wanted:
        msg = "--copied says that the old store's content is in the new one: name that, --store URL"
        raise Invalid(msg)
    code = find_code(folder)
    if remote:
        code = _choose_remote(code, remote, folder)
    session = open_session(folder, code)
    seen = set_up(session, wanted=wanted)
    if wanted and _moved(seen.shared, wanted, copied=copied) != seen.shared:
        open_store(_moved(seen.shared, wanted).store_url or "", seen.known_repository(), create=not copied)
        change = partial(_moved, wanted=wanted, copied=copied)
        seen = change_settings(session, change, f"Keep new runs in {store}")
    open_store(seen.store_url, seen.known_repository(), create=True)
    for check in (push_check(session), store_check(seen)):
        if check.result is Result.BAD:
            raise Failed(check.text)
    _report(session, seen)
    if public is not None:
        from cli.webhook import set_up_webhook  # noqa: PLC0415 (httpx takes 100 ms)

        set_up_webhook(session, seen, public)


def _public(webhook: str | None) -> str | None:
    """Where the controller is reached, if a webhook is asked for. Raises Invalid."""
    if webhook is None:
        return None
    from cli.webhook import public_address  # noqa: PLC0415 (likewise)

    return public_address(webhook)


def _wanted(store: str | None, endpoint_url: str | None, region: str | None) -> Settings | None:
    """What is asked for; None where no store is named. Raises Invalid."""
    if not store:
        if endpoint_url or region:
            msg = "--endpoint-url and --region say where a bucket is: name it as well, --store s3://bucket/prefix"
            raise Invalid(msg)
        return None
    wanted = Settings(store=store, endpoint_url=endpoint_url, region=region)
    check_url(wanted.store_url or "")
    return wanted


def _moved(settings: Settings, wanted: Settings, *, copied: bool = False) -> Settings:
    """Of the same store, what isn't said stays as it is. `copied`: what lay in the old one is found in the new one."""
    kept = settings if wanted.store == settings.store else wanted
    endpoint_url, region = wanted.endpoint_url or kept.endpoint_url, wanted.region or kept.region
    new = replace(settings, store=wanted.store, endpoint_url=endpoint_url, region=region)
    old, there = settings.store_url or default_url(os.environ), new.store_url
    if not copied or there is None or there == old:
        return new
    return replace(new, stores={**{url: place for url, place in settings.stores.items() if url != there}, old: there})


def _choose_remote(code: CodeRepository, name: str, folder: Path) -> CodeRepository:
    """Check it, then keep it in git's settings of this repository."""
    if name != "." and f"remote.{name}.url" not in code.settings and "://" not in name and (folder / name).exists():
        name = os.path.abspath(folder / name)  # noqa: PTH100 (symbolic links stay as the user wrote them)
    choose_remote({**code.settings, "dstack.remote": name}, code.top, code.common, code.reaching)
    address = parse_address(name)
    if address.password is not None:
        keep_credentials(code.common / "dstack", address)
    git.output(code.context, "config", "dstack.remote", address.url if address.password is not None else name)
    return find_code(folder)


def _report(session: Session, seen: Seen) -> None:
    say(f"State remote: {session.remote.name} ({session.remote.url}): fetch and push work")
    say(f"Store:        {seen.store_url}: reading and writing work")
    path = session.code.top / PATH
    if _write_sample(path):
        say(f"Workflows:    {path} is new; change it as you like")
    say(f"Next:         dstack run {_first(path)} --local, or `dstack up` and `dstack run` in another terminal")


def _first(path: Path) -> str:
    """The name of the first workflow, for an example."""
    try:
        return next(iter(parse_workflows(path.read_bytes(), allow_env=None).names), "WORKFLOW")
    except (OSError, Invalid):
        return "WORKFLOW"


def _write_sample(path: Path) -> bool:
    """Whether there was none; what is there is never touched."""
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(SAMPLE)
    except FileExistsError:
        return False
    except OSError as error:
        msg = f"can't write {path}: {error.strerror}"
        raise Failed(msg) from error
    return True
