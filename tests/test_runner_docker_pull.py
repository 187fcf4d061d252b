"""Images from a registry: pulled once, with a login, again after trouble, and given up when nobody waits."""

import json
import logging
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dstack.model.job import Pull, Reason
from runner import engine
from runner.cancelling import Cancel, Cancelled
from runner.container import DockerExecutor
from runner.executor import Launch, StartFailed
from runner.frames import SYSTEM
from runner.pull_progress import Progress
from runner.pull_refusals import is_passing
from tests import docker_images, image_registry
from tests.attempts import ended, launch, output, until
from tests.docker_engine import DockerEngine, client
from tests.image_registry import Registry


@pytest.fixture(scope="module")
def archive() -> Iterator[tuple[Path, list[str]]]:
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        yield Path(file.name), docker_images.busybox(Path(file.name))


@pytest.fixture
def registry() -> Iterator[Registry]:
    with image_registry.registry() as one:
        yield one


@pytest.fixture
def executor(docker_engine: DockerEngine, tmp_path: Path, registry: Registry) -> Iterator[DockerExecutor]:
    executor = DockerExecutor(
        lambda: None, instance=f"e1{abs(hash(tmp_path)):x}", base_url=docker_engine.url, pauses=(0.01, 0.01)
    )
    yield executor
    for key in executor.leftovers():
        executor.remove(key)
    executor.close()
    with client(docker_engine.url) as api:
        for one in api.images():
            for name in one["RepoTags"] or []:
                if name.startswith(registry.name):
                    api.remove_image(name, force=True)


def job(tmp_path: Path, image: str, pull: Pull = Pull.MISSING, key: str = "0123456789ab.1") -> Launch:
    one = launch(tmp_path, "echo ran", key=key, job={"image": image})
    return replace(
        one, job=type(one.job)(**{**{f: getattr(one.job, f) for f in one.job.__struct_fields__}, "pull": pull})
    )


def said(one: Launch) -> str:
    return output(one.folder, SYSTEM).decode()


@pytest.mark.docker
def test_an_absent_image_is_pulled_once_for_all_who_wait(
    executor: DockerExecutor, registry: Registry, archive: tuple[Path, list[str]], tmp_path: Path
) -> None:
    name = registry.add("team/image", "1", *archive)
    registry.pause = 0.05
    all_ = [job(tmp_path, name, key=f"{letter}.1") for letter in "abc"]
    threads = [threading.Thread(target=executor.start, args=(one,)) for one in all_]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    exits = [ended(executor, one.key) for one in all_]
    assert [exit_.exit_code for exit_ in exits] == [0, 0, 0]
    assert registry.asked_for("/manifests/1") <= 1
    manifest = registry.content["/v2/team/image/manifests/1"][1]
    assert {exit_.image for exit_ in exits} == {f"{name.removesuffix(':1')}@{image_registry.digest(manifest)}"}
    assert f"dstack: pulling the image {name}\n" in said(all_[0])
    assert f"dstack: pulled the image: {exits[0].image}\n" in said(all_[0])


@pytest.mark.docker
def test_of_an_image_with_several_names_that_of_the_job_is_recorded(
    executor: DockerExecutor, registry: Registry, archive: tuple[Path, list[str]], tmp_path: Path
) -> None:
    names = [registry.add(f"team/{letter}", "1", *archive) for letter in "bac"]
    for number, name in enumerate(names):
        executor.start(one := job(tmp_path, name, key=f"{number}.1"))
        assert str(ended(executor, one.key).image).startswith(f"{name.removesuffix(':1')}@sha256:")


@pytest.mark.parametrize(
    ("asked", "recorded"),
    [
        ("python:3.12", "python@sha256:1"),
        ("docker.io/library/python", "python@sha256:1"),
        ("ada/python@sha256:1", "ada/python@sha256:1"),
        ("tagged-here", "other@sha256:1"),
    ],
)
def test_the_name_asked_for_is_found_as_docker_writes_it(asked: str, recorded: str) -> None:
    there = ["other@sha256:1", "python@sha256:1", "ada/python@sha256:1"]
    assert engine._own(asked, there) == recorded


@pytest.mark.docker
def test_a_tag_that_moved_is_followed_only_where_always_is_said(
    executor: DockerExecutor, registry: Registry, archive: tuple[Path, list[str]], tmp_path: Path
) -> None:
    name = registry.add("moving", "1", *archive)
    executor.start(first := job(tmp_path, name, key="a.1"))
    other = registry.add("moving", "2", *archive)
    registry.content["/v2/moving/manifests/1"] = registry.content["/v2/moving/manifests/2"]
    assert other != name
    executor.start(second := job(tmp_path, name, key="b.1"))
    executor.start(third := job(tmp_path, name, Pull.ALWAYS, key="c.1"))
    digests = [ended(executor, one.key).image for one in (first, second, third)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.docker
def test_without_its_registry_an_image_that_is_here_is_used(
    executor: DockerExecutor, registry: Registry, archive: tuple[Path, list[str]], tmp_path: Path
) -> None:
    name = registry.add("here", "1", *archive)
    executor.start(job(tmp_path, name, key="a.1"))
    registry.failing = 100
    executor.start(again := job(tmp_path, name, Pull.ALWAYS, key="b.1"))
    assert ended(executor, again.key).exit_code == 0
    assert "the one that is here is used" in said(again)


@pytest.mark.docker
def test_a_registry_that_is_unwell_is_asked_again(
    executor: DockerExecutor, registry: Registry, archive: tuple[Path, list[str]], tmp_path: Path
) -> None:
    name = registry.add("unwell", "1", *archive)
    registry.failing = 2
    executor.start(one := job(tmp_path, name))
    assert ended(executor, one.key).exit_code == 0
    assert registry.failing == 0
    registry.failing = 100
    other = registry.add("unwell", "2", *archive)
    with pytest.raises(StartFailed, match="can't be reached, or is unwell") as failed:
        executor.start(job(tmp_path, other, key="b.1"))
    assert failed.value.reason is Reason.IMAGE_PULL


@pytest.mark.docker
@pytest.mark.parametrize("way", ["file", "helper"])
def test_the_login_of_the_runners_user_is_used(  # noqa: PLR0917 (fixtures)
    executor: DockerExecutor,
    registry: Registry,
    archive: tuple[Path, list[str]],
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    way: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    name = registry.add("private", way, *archive)
    registry.login = ("ada", "hush-hush")
    with pytest.raises(StartFailed, match="docker login") as failed:
        executor.start(job(tmp_path, name, key="a.1"))
    assert failed.value.reason is Reason.IMAGE_AUTH
    (home / ".docker").mkdir()
    config = home / ".docker" / "config.json"
    if way == "file":
        header = image_registry.basic("ada", "hush-hush").removeprefix("Basic ")
        config.write_text(json.dumps({"auths": {registry.name: {"auth": header}}}))
    else:
        config.write_text(json.dumps({"credHelpers": {registry.name: "tests"}}))
        with pytest.raises(StartFailed, match="docker-credential-tests isn't installed") as failed:
            executor.start(job(tmp_path, name, key="b.1"))
        assert failed.value.reason is Reason.IMAGE_AUTH
        helper = tmp_path / "bin" / "docker-credential-tests"
        helper.parent.mkdir()
        helper.write_text('#!/bin/sh\necho \'{"Username": "ada", "Secret": "hush-hush"}\'\n')
        helper.chmod(0o755)
        monkeypatch.setenv("PATH", str(helper.parent), prepend=":")
    executor.start(one := job(tmp_path, name, key="c.1"))
    assert ended(executor, one.key).exit_code == 0
    assert "hush" not in caplog.text + said(one)


@pytest.mark.docker
def test_a_wrong_password_and_a_missing_image_are_told_apart(
    executor: DockerExecutor, registry: Registry, tmp_path: Path, home: Path
) -> None:
    with pytest.raises(StartFailed, match="check its name") as failed:
        executor.start(job(tmp_path, f"{registry.name}/nothing:1", key="a.1"))
    assert failed.value.reason is Reason.IMAGE_PULL
    registry.login = ("ada", "right")
    (home / ".docker").mkdir()
    header = image_registry.basic("ada", "wrong").removeprefix("Basic ")
    (home / ".docker" / "config.json").write_text(json.dumps({"auths": {registry.name: {"auth": header}}}))
    with pytest.raises(StartFailed) as failed:
        executor.start(job(tmp_path, f"{registry.name}/nothing:1", key="b.1"))
    assert failed.value.reason is Reason.IMAGE_AUTH
    assert "wrong" not in str(failed.value)


@pytest.mark.docker
def test_who_is_asked_to_give_up_leaves_a_slow_pull_at_once(
    executor: DockerExecutor, registry: Registry, archive: tuple[Path, list[str]], tmp_path: Path
) -> None:
    other = tmp_path / "other.tar"
    other.write_bytes(archive[0].read_bytes() + bytes(10240))  # a layer that the engine hasn't got
    name = registry.add("slow", "1", other, archive[1])
    registry.pause = 30.0
    cancel = Cancel()
    raised: list[BaseException] = []

    def start() -> None:
        try:
            executor.start(replace(job(tmp_path, name), check=cancel.check))
        except Cancelled as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    until(lambda: registry.asked_for("/blobs/") >= 1)
    cancel.ask()
    thread.join(5)
    assert not thread.is_alive()
    assert raised
    assert executor.leftovers() == ()
    registry.pause = 0.0


def test_progress_is_said_in_layers_and_bytes() -> None:
    progress = Progress()
    assert str(progress) == "asking the registry"
    lines: list[dict[str, Any]] = [
        {"id": "1", "status": "Pulling from team/image"},
        {"id": "a", "status": "Pulling fs layer", "progressDetail": {}},
        {"id": "b", "status": "Already exists", "progressDetail": {}},
        {"id": "a", "status": "Downloading", "progressDetail": {"current": 5_000_000, "total": 20_000_001}},
        {"status": "Digest: sha256:abc"},
        {"id": 3, "status": None},
    ]
    for line in lines:
        progress = progress.with_line(line)
    assert str(progress) == "1 of 2 layers, 5 of 21 MB"
    for status in ("Download complete", "Extracting", "Pull complete"):
        progress = progress.with_line({"id": "a", "status": status, "progressDetail": {"current": 7, "total": 9}})
    assert str(progress) == "2 of 2 layers, 20 of 21 MB"


@pytest.mark.parametrize(
    ("words", "passing"),
    [
        ('Get "https://x/v2/": dial tcp: lookup x on 127.0.0.53:53: no such host', True),
        ("received unexpected HTTP status: 503 Service Unavailable", True),
        ("net/http: TLS handshake timeout", True),
        ("unexpected EOF", True),
        ("toomanyrequests: You have reached your pull rate limit", True),
        ("manifest for x:1 not found: manifest unknown", False),
        ("pull access denied for x, repository does not exist or may require 'docker login'", False),
        ("no space left on device", False),
        ("invalid reference format", False),
    ],
)
def test_only_what_may_pass_is_tried_again(words: str, *, passing: bool) -> None:
    assert is_passing(words) is passing
