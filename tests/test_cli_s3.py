"""The commands with a store in S3: set up, run, follow, fetch, and be told what is wrong."""

import hashlib
import json
from pathlib import Path

import pytest

from dstack.store import s3_client
from tests.calls import Desk, desk
from tests.repositories import sh
from tests.s3_server import S3Server, objects

WORKFLOWS = """\
workflows:
  - name: make
    commands:
      - mkdir out; i=0; while [ $i -lt 50 ]; do i=$((i+1)); echo $i > out/$i; done
      - head -c 9000000 /dev/zero > out/large; echo made
    artifacts: [out]
  - {name: use, depends-on: [make], commands: [cat out/50; wc -c < out/large]}
"""


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    made = desk(tmp_path, capfd)
    made.write(".dstack/workflows.yaml", WORKFLOWS)
    (made.folder / ".dstack/variables.yaml").unlink()
    return made


def set_up(at: Desk, s3: S3Server) -> str:
    bucket = s3.bucket()
    done = at.dstack("init", "--store", f"s3://{bucket}/team", "--endpoint-url", s3.endpoint)
    assert done.code == 0, done.err
    return bucket


def test_a_run_keeps_its_bytes_in_the_bucket(at: Desk, s3: S3Server, tmp_path: Path) -> None:
    bucket = set_up(at, s3)
    assert at.dstack("run", "use", "--local", "--name", "first").code == 0
    assert "9000000" in at.dstack("logs", "first").out
    listed = at.dstack("artifacts", "first", "--json").json
    assert len(listed) == 51
    assert at.dstack("artifacts", "first", "-o", str(tmp_path / "there")).code == 0
    for one in listed:
        data = (tmp_path / "there" / one["artifact"] / one["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (one["size"], one["sha256"])
    kept = objects(s3, bucket)
    assert all(key.startswith("team/") for key in kept)
    assert sum(1 for key in kept if "/objects/" in key) == 2  # one pack, one large file


def test_what_is_not_said_again_stays(at: Desk, s3: S3Server) -> None:
    bucket = set_up(at, s3)
    assert at.dstack("init", "--store", f"s3://{bucket}/team").code == 0
    assert at.dstack("init").code == 0
    assert at.dstack("run", "make", "--local").code == 0


def test_a_store_that_is_not_there_changes_nothing(at: Desk, s3: S3Server) -> None:
    set_up(at, s3)
    before = at.refs()
    done = at.dstack("init", "--store", "s3://not-there", "--endpoint-url", s3.endpoint)
    assert (done.code, "no such bucket" in done.err) == (1, True)
    assert at.refs() == before
    done = at.dstack("init", "--endpoint-url", s3.endpoint)
    assert (done.code, "name it as well" in done.err) == (1, True)


def test_the_doctor_looks_at_the_bucket(at: Desk, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = set_up(at, s3)
    found = {one["name"]: one for one in json.loads(at.dstack("doctor", "--json").out)}
    assert found["store"]["result"] == "ok", found
    assert [key for key in objects(s3, bucket) if "probe" in key] == []
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-wrong-secret")
    s3_client._client.cache_clear()
    try:
        done = at.dstack("doctor", "--json")
    finally:
        s3_client._client.cache_clear()
    found = {one["name"]: one for one in json.loads(done.out)}
    assert (done.code, found["store"]["result"]) == (1, "bad")
    assert "refuses the secret key" in found["store"]["text"]
    assert "planted" not in done.out + done.err


def test_no_key_is_written_anywhere(at: Desk, s3: S3Server) -> None:
    bucket = set_up(at, s3)
    assert at.dstack("run", "use", "--local").code == 0
    secret = s3.environment["AWS_SECRET_ACCESS_KEY"].encode()
    for folder in (at.folder, at.remote):
        assert secret not in sh(folder, "cat-file", "--batch-all-objects", "--batch", "--unordered").encode(
            errors="surrogateescape"
        )
        for path in folder.rglob("*"):
            assert not path.is_file() or secret not in path.read_bytes(), path
    client = s3.client()
    for key in objects(s3, bucket):
        assert secret not in client.get_object(Bucket=bucket, Key=key)["Body"].read()
