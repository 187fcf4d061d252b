"""Measures transfers of artifact sets to and from a real S3 server on this machine, beside other tools, in one run.

`python -m benchmarks.transfers [small] [medium] [large] [--scale 0.1] [--folder DIR]`. It says which bounds don't hold.
"""

import argparse
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.transfer_tools import OURS, Taken, Transfer, programs
from tests.s3_server import S3Server

KIB, MIB = 1024, 1024 * 1024
MEMORY_MIB = 250
AGAIN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Set:
    """`count` files of `size` bytes. `share`: how much of the best speed ours must reach."""

    name: str
    count: int
    size: int
    share: float

    def scaled(self, scale: float) -> "Set":
        """A smaller one; of one file, a smaller file."""
        count = max(1, round(self.count * scale))
        size = round(self.size * scale) if self.count == 1 else self.size
        return Set(name=self.name, count=count, size=size, share=self.share)

    def make(self, folder: Path) -> None:
        """Random content in folders of a hundred, old enough to be trusted."""
        chance = random.Random(self.name)  # noqa: S311 (only to be alike each time)
        for number in range(self.count):
            path = folder / f"{number // 100:03}" / f"{number:05}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for at in range(0, self.size, MIB):
                    file.write(chance.randbytes(min(MIB, self.size - at)))
        time.sleep(2.5)

    def change(self, folder: Path) -> None:
        """One file, in its middle, to what it never was before."""
        number = self.count // 2
        with (folder / f"{number // 100:03}" / f"{number:05}.bin").open("r+b") as file:
            file.seek(self.size // 2)
            file.write(os.urandom(16))


SETS = (
    Set(name="small", count=10_000, size=4 * KIB, share=1.0),
    Set(name="medium", count=200, size=5 * MIB, share=0.9),
    Set(name="large", count=1, size=2048 * MIB, share=0.9),
)


def main() -> None:
    """Measure the sets that are named, else all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", choices=[[], *(one.name for one in SETS)])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=2, help="the best of so many counts")
    parser.add_argument("--tools", nargs="*", default=programs())
    chosen = parser.parse_args()
    with _server(chosen.folder) as (server, base):
        for one in SETS:
            if not chosen.sets or one.name in chosen.sets:
                _measure(one.scaled(chosen.scale), Bench(server, base, chosen.tools), chosen.rounds)


@contextmanager
def _server(folder: Path | None) -> Iterator[tuple[S3Server, Path]]:
    with tempfile.TemporaryDirectory(dir=folder) as base:
        server = S3Server(Path(base) / "server")
        server.start()
        try:
            yield server, Path(base)
        finally:
            server.kill()


@dataclass(frozen=True, slots=True)
class Bench:
    """What is measured with."""

    server: S3Server
    base: Path
    tools: list[str]

    def transfer(self, tool: str, bucket: str, folder: Path, *, up: bool) -> Taken:
        """One, with nothing of the ones before still on its way to the disk."""
        os.sync()
        return Transfer(tool=tool, up=up, endpoint=self.server.endpoint, bucket=bucket, folder=folder).take()

    def bucket(self) -> str:
        """One that has had its first object: a server makes room for it then."""
        name, client = self.server.bucket(), self.server.client()
        client.put_object(Bucket=name, Key="first", Body=b"x")
        client.delete_object(Bucket=name, Key="first")
        return name


Results = dict[str, Taken]


def _measure(one: Set, bench: Bench, rounds: int) -> None:
    source = bench.base / one.name
    one.make(source)
    print(f"\n{one.count:,} x {one.size / KIB:,.0f} KiB", flush=True)
    best = Results()
    for number in range(rounds):
        # Each in turn begins: what the one before left to the disk and the server costs the next.
        turn = number % len(bench.tools)
        for tool in (*bench.tools[turn:], *bench.tools[:turn]):
            for what, taken in _round(tool, one, bench, source).items():
                print(f"  {what:24} {_text(one, taken)}", flush=True)
                best[what] = min(best.get(what, taken), taken, key=lambda each: each.seconds)
    _judge(one, bench.tools, best)
    shutil.rmtree(source)


def _round(tool: str, one: Set, bench: Bench, source: Path) -> Results:
    bucket, target = bench.bucket(), bench.base / "target"
    results = {f"{tool} up": bench.transfer(tool, bucket, source, up=True)}
    results[f"{tool} down"] = bench.transfer(tool, bucket, target, up=False)
    _compare(source, target / one.name if tool == OURS else target)
    if tool == OURS:
        results[f"{OURS} down again"] = bench.transfer(tool, bucket, target, up=False)
        results[f"{OURS} up again"] = bench.transfer(tool, bucket, source, up=True)
        one.change(source)
        results[f"{OURS} up, one changed"] = bench.transfer(tool, bucket, source, up=True)
    shutil.rmtree(target)
    return results


def _compare(source: Path, target: Path) -> None:
    files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    for path in files[:: max(1, len(files) // 50)]:
        if (source / path).stat().st_size != (target / path).stat().st_size:
            msg = f"{path} did not come back"
            raise RuntimeError(msg)


def _text(one: Set, taken: Taken) -> str:
    speed = f"{one.count / taken.seconds:9,.0f} files/s  {one.count * one.size / MIB / taken.seconds:7,.0f} MiB/s"
    return f"{taken.seconds:8.3f} s  {speed}  {taken.memory:6.0f} MiB of memory"


def _judge(one: Set, tools: Sequence[str], best: Results) -> None:
    """Of one file, the one that is changed is all of them."""
    shares = [
        min(best[f"{tool} {way}"].seconds for tool in tools) / best[f"{OURS} {way}"].seconds for way in ("up", "down")
    ]
    again = ["up again", *(["up, one changed"] if one.count > 1 else [])]
    times = [best[f"{OURS} up"].seconds / best[f"{OURS} {what}"].seconds for what in again]
    others = [best[f"{tool} up"].seconds for tool in tools if tool != OURS]
    beside = f", {min(others) / best[f'{OURS} up again'].seconds:.0f} x the others' first time" if others else ""
    memory = max(taken.memory for what, taken in best.items() if what.startswith(OURS))
    good = min(shares) >= one.share and min(times) >= AGAIN and memory <= MEMORY_MIB
    print(
        f"  {'holds' if good else 'DOES NOT HOLD'}: up {shares[0]:.2f} and down {shares[1]:.2f} of the best (at least "
        f"{one.share}); again {', '.join(f'{each:.0f} x' for each in times)} (at least {AGAIN} x){beside}; "
        f"{memory:.0f} MiB (at most {MEMORY_MIB})"
    )


if __name__ == "__main__":
    main()
