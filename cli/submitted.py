"""What `dstack run` does once its run is pushed: print it, or follow it to its end."""

import msgspec

from cli.home import why_nobody_decides
from cli.lines import JobLine, RunLine, run_line
from cli.log_text import LogPrinter, prefixes
from cli.preparing import Prepared
from cli.reading import Reader
from cli.run_end import exit_code, followed
from cli.session import Seen, Session
from cli.terminal import say, tell
from dstack.ledger.submit import Submitted
from dstack.model.runspec import Wanted
from dstack.model.world import RunView


class DetachedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """`run --detach --json`. `snapshot` is the commit that is run."""

    run: str
    root: str
    snapshot: str
    jobs: tuple[JobLine, ...]


def see_through(session: Session, seen: Seen, prepared: Prepared, submitted: Submitted) -> int:
    """Print the logs until the run has ended; the exit code."""
    if why := why_nobody_decides(seen):
        tell(f"{why}. Waiting for one.")
    line = line_of(prepared, submitted)
    return exit_code(followed(Reader(session), line, LogPrinter(prefixes=prefixes(line.jobs))))


def print_detached(prepared: Prepared, submitted: Submitted) -> int:
    """The run's name, or JSON."""
    line = line_of(prepared, submitted)
    if prepared.order.options.as_json:
        answer = DetachedDocument(run=line.run, root=line.root, snapshot=prepared.snapshot.commit, jobs=line.jobs)
        say(msgspec.json.encode(answer).decode())
    else:
        say(line.run)
    return 0


def line_of(prepared: Prepared, submitted: Submitted) -> RunLine:
    """The run as it is before anybody has seen it."""
    plan = prepared.plan(submitted.root)
    return run_line(RunView(key=submitted.key, root=submitted.root, spec=prepared.spec, wanted=Wanted(), plan=plan))
