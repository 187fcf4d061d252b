"""Volumes and cache-dirs: where they appear, what they never overwrite, and what becomes of them."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from dstack.model import manifest as manifests
from dstack.model.job import Job, Reason, Volume
from dstack.model.pool import Input
from dstack.store.artifacts import Tree, save
from dstack.store.memory import MemoryStore
from runner import lending, recipe
from runner.caches import Caches
from runner.disk import Space
from runner.engine_values import State
from runner.executor import Launch, Lent, StartFailed
from runner.facts import Given
from tests.agents import Office
from tests.duties import a_job, given_job


def lent_to(path: str, here: Path, **more: bool) -> tuple[Lent, ...]:
    return (Lent(here=here, path=path, **more),)


def job(*, image: str | None = None, working_dir: str = ".", caches: tuple[str, ...] = ()) -> Job:
    return msgspec.structs.replace(a_job(image=image), working_dir=working_dir, cache_dirs=caches)


def with_places(*volumes: Volume, caches: tuple[str, ...] = (), artifacts: tuple[str, ...] = ("out",)) -> Given:
    return given_job(msgspec.structs.replace(a_job(artifacts=artifacts), volumes=volumes, cache_dirs=caches))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "precious").write_text("do not touch")
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


def test_a_process_finds_a_link_where_it_asked_for_the_folder(tree: Path, data: Path) -> None:
    (tree / "sub").mkdir()
    lending.put(tree, job(working_dir="sub"), lent_to("in/data", data))
    assert (tree / "sub" / "in" / "data" / "precious").read_text() == "do not touch"
    assert (tree / "sub" / "in" / "data").is_symlink()


def test_a_container_finds_an_empty_folder_to_mount_on(tree: Path, data: Path) -> None:
    one = job(image="busybox", working_dir="sub")
    lending.put(tree, one, (*lent_to("data", data), *lent_to("/workflow/other", data), *lent_to("/datasets", data)))
    assert sorted(str(path.relative_to(tree)) for path in tree.rglob("*")) == ["other", "sub", "sub/data"]
    assert not (tree / "sub" / "data").is_symlink()
    inner = [lending.inner(one, path) for path in ("data", "/workflow/other", "/datasets/")]
    assert inner == ["/workflow/sub/data", "/workflow/other", "/datasets"]


@pytest.mark.parametrize("image", [None, "busybox"])
def test_nothing_of_the_repository_is_overwritten_or_followed(tree: Path, data: Path, image: str | None) -> None:
    (tree / "full").mkdir()
    (tree / "full" / "file").write_text("mine")
    (tree / "link").symlink_to(data)
    (tree / "file").write_text("mine")
    for path in ("full", "file", "link", "link/deeper", "file/deeper"):
        with pytest.raises(StartFailed, match="the repository or an input has something") as error:
            lending.put(tree, job(image=image), lent_to(path, data))
        assert error.value.reason is Reason.INVALID
    assert (tree / "full" / "file").read_text() == "mine"
    assert [path.name for path in data.iterdir()] == ["precious"]


@pytest.mark.parametrize("path", ["/etc", "../x", ".", "a/../../x", "/workflow/x"])
def test_a_process_gets_nothing_outside_of_its_checkout(tree: Path, data: Path, path: str) -> None:
    with pytest.raises(StartFailed, match="not a place in the repository"):
        lending.put(tree, job(), lent_to(path, data))
    assert list(tree.iterdir()) == []


@pytest.mark.parametrize("path", ["/", "/workflow", "../x"])
def test_nor_does_a_container_take_its_whole_file_system_from_us(tree: Path, data: Path, path: str) -> None:
    with pytest.raises(StartFailed, match="not a place"):
        lending.put(tree, job(image="busybox"), lent_to(path, data))


def test_volumes_are_whose_they_are_and_caches_are_ours(tmp_path: Path, data: Path) -> None:
    caches = Caches(tmp_path / "caches")
    one = job(image="busybox", caches=(".cache/pip",))
    launch = Launch(
        key="0123456789ab.1",
        job=one,
        script="true",
        environment={},
        tree=tmp_path / "tree",
        folder=tmp_path / "folder",
        lent=(Lent(here=data, path="data"), Lent(here=data, path="/ro", read_only=True), *caches.of(one)),
    )
    made = recipe.container(launch, "name", "image", "us")
    cache = caches.of(one)[0].here
    assert made.binds[2:] == (
        (data, "/workflow/data", False),
        (data, "/ro", True),
        (cache, "/workflow/.cache/pip", False),
    )
    state = State("id", "exited", 0, False, 0, "image", made.labels, (data, cache, tmp_path / "tree"))  # noqa: FBT003
    assert recipe.ours(state) == [cache, tmp_path / "tree"]


def test_a_cache_is_found_again_by_its_place_and_half_a_cache_never(tmp_path: Path) -> None:
    caches = Caches(tmp_path / "caches")
    one, same = job(caches=("sub/pip",)), job(working_dir="sub", caches=("pip",))
    other = job(image="busybox", caches=("/root/.cache/" + "x" * 300, "x"))
    for each in (one, same, other):
        caches.make(each)
    assert caches.of(one)[0].here == caches.of(same)[0].here
    places = {lent.here for each in (one, same, other) for lent in caches.of(each)}
    assert len(places) == 3
    for place in places:
        (place / "wheel").write_text("x")
    (caches.of(other)[0].here / "deep").mkdir(mode=0o000)
    caches.trim([one])
    assert [path for path in places if path.exists()] == [caches.of(one)[0].here]
    caches.make(other)
    assert list(caches.of(other)[0].here.iterdir()) == []
    caches.trim([])
    assert [path.name for path in (tmp_path / "caches").iterdir()] == ["lock"]


def test_runners_that_share_caches_take_none_from_each_other(tmp_path: Path) -> None:
    mine, others, one = Caches(tmp_path), Caches(tmp_path), job(caches=("pip",))
    others.make(one)
    mine.make(job(caches=("other",)))
    mine.trim([])
    assert others.of(one)[0].here.exists()
    others.close()
    mine.trim([])
    assert not others.of(one)[0].here.exists()


def test_an_attempt_reads_a_volume_fills_a_cache_and_keeps_neither(tmp_path: Path, data: Path) -> None:
    office = Office(tmp_path, volumes={"data": str(data)}, labels={"runner": "quick-owl"})
    one = with_places(Volume(name="data", path="in"), caches=("pip",), artifacts=(".",))
    office.assign(one)
    office.until(lambda: one.attempt.key in office.executor.launches)
    tree = office.executor.launches[one.attempt.key].tree
    assert (tree / "in" / "precious").read_text() == "do not touch"
    (tree / "pip" / "wheel").write_text("a wheel")
    office.space = Space(free=0, total=2**40)
    office.settle(10.0)
    assert (tree / "pip" / "wheel").exists(), "it is in use, though the disk is full"
    office.space = None
    office.executor.end(one.attempt.key)
    office.settle(10.0)
    manifest = office.claim(one).manifest
    assert manifest is not None
    found = manifests.from_bytes(office.objects.get(f"manifests/{manifest}", limit=10**6) or b"")
    assert {entry.path: entry.kind for entry in found.entries if entry.path in {"in", "pip"}}.keys() == {"in", "pip"}
    assert not [entry for entry in found.entries if "/" in entry.path], "links alone, nothing behind them"
    (cache,) = (tmp_path / "caches").glob("at-*")
    assert (cache / "wheel").read_text() == "a wheel"
    office.space = Space(free=0, total=2**40)
    office.settle(70.0)
    assert not cache.exists()
    assert (data / "precious").exists()


@pytest.mark.parametrize(
    ("volumes", "words"),
    [
        ({}, "the runner quick-owl offers no volume data: `dstack-runner config --volume data=FOLDER` there"),
        ({"data": "/nowhere/at/all"}, "the folder /nowhere/at/all of the volume data is not there"),
    ],
)
def test_a_volume_that_is_gone_ends_the_attempt(tmp_path: Path, volumes: dict[str, str], words: str) -> None:
    office = Office(tmp_path, volumes=volumes, labels={"runner": "quick-owl"})
    one = with_places(Volume(name="data", path="in"))
    office.assign(one)
    office.settle(3.0)
    assert office.claim(one).reason is Reason.REJECTED
    assert office.claim(one).message.startswith(words)


def test_an_input_in_another_store_is_fetched_from_there(tmp_path: Path) -> None:
    (tmp_path / "tagged").mkdir()
    (tmp_path / "tagged" / "model").write_text("weights")
    elsewhere = MemoryStore()
    saved = save(elsewhere, Tree(root=tmp_path / "tagged"), ("model",))
    assert saved.digest is not None
    office = Office(tmp_path / "office", stores={"s3://old/place": elsewhere})
    good, bad = given_job(a_job("good")), given_job(a_job("bad"))
    office.assign(
        with_input(good, Input(job="", manifest=saved.digest, store="s3://old/place")),
        with_input(bad, Input(job="", manifest=saved.digest, store="s3://gone/place")),
    )
    office.until(lambda: good.attempt.key in office.executor.launches)
    assert (office.executor.launches[good.attempt.key].tree / "model").read_text() == "weights"
    office.settle(5.0)
    claim = office.claim(bad)
    assert claim.reason is Reason.INPUT_MISSING
    assert claim.message.startswith("an input could not be put in place from the store s3://gone/place: ")


def with_input(one: Given, *inputs: Input) -> Given:
    return replace(one, attempt=msgspec.structs.replace(one.attempt, inputs=inputs))
