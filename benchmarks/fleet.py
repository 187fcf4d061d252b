"""Idle repositories in one controller: memory, threads and processor time, on this machine and over git's protocol.

python benchmarks/fleet.py [REPOSITORIES] [SECONDS]
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from cli.fleet import Service
from cli.fleet_config import File
from controller.fleet import Fleet
from dstack.ledger import records
from dstack.ledger.cache import Cache
from dstack.model import refs


def main() -> None:
    given = dict(enumerate(sys.argv))
    count, seconds = int(given.get(1, "50")), float(given.get(2, "15"))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ |= {"HOME": place, "GIT_CONFIG_GLOBAL": os.devnull}
        os.environ |= {f"XDG_{kind}_HOME": f"{place}/{kind}" for kind in ("STATE", "DATA", "CONFIG")}
        remotes = [_made(folder / f"r{number}.git", number) for number in range(count)]
        print(f"{'':24}{'memory':>10}{'threads':>9}{'processor':>11}{'polls':>9}{'files':>7}")
        _measure("none", folder, [], seconds=1.0)
        _measure(f"{count} on this machine", folder, [str(one) for one in remotes], seconds=seconds)
        with _daemon(folder) as port:
            urls = [f"git://127.0.0.1:{port}/{one.name}" for one in remotes]
            _measure(f"{count} by git://", folder, urls, seconds=seconds)


def _measure(title: str, folder: Path, urls: list[str], *, seconds: float) -> None:
    """In a process of its own, so that each begins anew."""
    if os.fork():
        os.wait()
        return
    path = folder / "controller.yaml"
    path.write_text("\n".join(["repositories:", *(f"- {url}" for url in urls)]) if urls else "repositories: []")
    fleet = Fleet()
    service = Service(File(path=path), fleet)
    service.begin()
    thread = threading.Thread(target=service.run)
    thread.start()
    while any(one.polled_at is None for one in fleet.summary()):
        time.sleep(0.1)
    time.sleep(2.0)
    turns, begun, spent = _turns(fleet), time.monotonic(), sum(os.times()[:4])
    time.sleep(seconds)
    took = time.monotonic() - begun
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    memory, threads = int(status["VmRSS"].split()[0]) / 1024, status["Threads"].strip()
    polls, share = (_turns(fleet) - turns) / took, 100 * (sum(os.times()[:4]) - spent) / took
    files = len(list(Path("/proc/self/fd").iterdir()))
    print(f"{title:24}{memory:>7.1f} MB{threads:>9}{share:>9.1f} %{polls:>7.1f}/s{files:>7}", flush=True)
    begun = time.monotonic()
    service.stop()
    thread.join()
    print(f"{'  ended in':24}{time.monotonic() - begun:>7.1f} s", flush=True)
    os._exit(0)


def _turns(fleet: Fleet) -> int:
    return sum(one.turns for one in fleet.summary())


def _made(path: Path, number: int) -> Path:
    """A repository that is set up, and has nothing to do."""
    git = ["git", "-C", str(path)]
    path.mkdir()
    subprocess.run([*git, "init", "--quiet", "--bare"], check=True)
    cache = Cache(path.with_suffix(".cache"), str(path))
    oid = records.write_id(cache.objects, f"{number:032x}")
    subprocess.run(["git", "-C", str(cache.path), "push", "-q", str(path), f"{oid}:{refs.ID}"], check=True)
    return path


@contextmanager
def _daemon(folder: Path) -> Generator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    program = shutil.which("git") or "git"
    words = [
        "daemon",
        "--export-all",
        "--reuseaddr",
        "--max-connections=0",
        "--listen=127.0.0.1",
        f"--port={port}",
        f"--base-path={folder}",
    ]
    running = subprocess.Popen([program, *words, str(folder)], stderr=subprocess.DEVNULL, start_new_session=True)
    time.sleep(0.5)
    try:
        yield port
    finally:
        os.killpg(running.pid, 15)
        running.wait()


if __name__ == "__main__":
    main()
