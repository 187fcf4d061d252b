"""Keys in the store, all relative to the repository's part of it (DESIGN section 10)."""

MARKER = "dstack-store.json"
RUNNERS = "runners/"
CONTROLLERS = "controllers/"
SEQ_DIGITS = 8


def content(sha256: str) -> str:
    """Artifact content by digest."""
    return f"objects/{sha256}"


def manifest(sha256: str) -> str:
    """One artifact set."""
    return f"manifests/{sha256}"


def log(run: str, job: str, attempt: int) -> str:
    """The prefix of an attempt's log, without trailing slash; `run` is a RunKey's text."""
    return f"logs/{run}/{job[:12]}/{attempt}"


def run_of_log(key: str) -> str:
    """Inverse of `log`, also for what is below it; empty for another key."""
    kind, _, rest = key.partition("/")
    return rest.partition("/")[0] if kind == "logs" else ""


def chunk(prefix: str, seq: int) -> str:
    """One chunk of a log; `seq` counts from 0."""
    return f"{prefix}/{seq:0{SEQ_DIGITS}d}"


def runner_heartbeat(runner: str, instance: str) -> str:
    """A runner's liveness."""
    return f"{RUNNERS}{runner}.{instance}.json"


def controller_heartbeat(controller: str) -> str:
    """Tells readers that somebody is home."""
    return f"{CONTROLLERS}{controller}.json"


def cache(key: str) -> str:
    """A hint: which job answers this key of a job (`dstack.model.reuse`)."""
    return f"cache/{key}"


def saved(run: str, job: str, attempt: int) -> str:
    """The last complete manifest of a running attempt."""
    return f"saved/{run}/{job[:12]}/{attempt}"


def watched(run: str) -> str:
    """A sign that somebody follows the logs of a run; `run` is a RunKey's text."""
    return f"watched/{run}"
