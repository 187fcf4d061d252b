"""`dstack run --local`: controller and a private runner in this process, for one run alone."""

import logging
import secrets
import shutil
import threading

from cli.daemons import controller_daemon, log_to_stderr
from cli.lines import RunLine
from cli.log_text import LogPrinter, prefixes
from cli.pool import RunnerDaemon, RunnerPlan
from cli.preparing import Order
from cli.reading import Reader
from cli.run_end import asked_locally, exit_code, followed
from cli.running import checked, line_of, submitted_run
from cli.session import Session

END_SECONDS = 10.0


def run_locally(session: Session, order: Order) -> int:
    """Submit the run for a runner of its own, and see it through; the exit code."""
    log_to_stderr(logging.WARNING)
    name = f"local-{secrets.token_hex(4)}"
    seen, prepared = checked(session, order, only=name)
    plan = RunnerPlan(name=name, folder=session.place / "local" / name, private=True)
    runner = RunnerDaemon(session, seen, plan)
    working = threading.Thread(target=runner.run, name="runner", daemon=True)
    working.start()
    prepared, submitted = submitted_run(session, prepared)
    controller = controller_daemon(session, seen, only=submitted.key)
    deciding = threading.Thread(target=controller.run, name="controller", daemon=True)
    deciding.start()
    line: RunLine = line_of(prepared, submitted)
    end = followed(Reader(session), line, LogPrinter(prefixes=prefixes(line.jobs)), asked_locally)
    runner.shutdown(stop_attempts=True)
    working.join(END_SECONDS)
    controller.stop()
    deciding.join(END_SECONDS)
    if not working.is_alive():
        runner.forget()
        shutil.rmtree(plan.folder, ignore_errors=True)
    return exit_code(end)
