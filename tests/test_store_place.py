from pathlib import Path

import pytest

from dstack.model.errors import Failed, Invalid
from dstack.store.artifacts import Tree, download, listing, load, place, save
from dstack.store.folder import FolderStore
from tests.artifact_sets import rich, shape

MIB = 1024 * 1024


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    (tmp_path / "store").mkdir()
    return FolderStore(tmp_path / "store")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "job").mkdir()
    return tmp_path / "job"


@pytest.fixture
def next_job(tmp_path: Path) -> Path:
    (tmp_path / "next").mkdir()
    return tmp_path / "next"


def test_a_set_comes_back_as_it_was(store: FolderStore, job: Path, next_job: Path) -> None:
    rich(job)
    before = shape(job)
    saved = save(store, Tree(root=job), ("out",))
    assert saved.warnings == ()
    assert saved.digest is not None
    assert saved.manifest == load(store, saved.digest)
    assert place(store, saved.digest, Tree(root=next_job)) == saved.manifest
    assert shape(next_job) == before == shape(job)


def test_the_whole_repository_can_be_an_artifact(store: FolderStore, job: Path, next_job: Path) -> None:
    rich(job)
    saved = save(store, Tree(root=job, working_dir="out"), ("..",))
    assert saved.digest is not None
    place(store, saved.digest, Tree(root=next_job))
    assert shape(next_job) == shape(job)


def test_absolute_paths_lie_where_the_tree_says(store: FolderStore, job: Path, next_job: Path, tmp_path: Path) -> None:
    (tmp_path / "mounts" / "7" / "sub").mkdir(parents=True)
    (tmp_path / "mounts" / "7" / "sub" / "f").write_text("x")
    (tmp_path / "mounts" / "8").mkdir()
    there = Tree(root=job, absolute={"/opt/data": tmp_path / "mounts" / "7"}.get)
    saved = save(store, there, ("/opt/./data/",))
    assert saved.digest is not None
    assert saved.manifest is not None
    assert [entry.path for entry in saved.manifest.entries] == ["/opt/data", "/opt/data/sub", "/opt/data/sub/f"]
    place(store, saved.digest, Tree(root=next_job, absolute={"/opt/data": tmp_path / "mounts" / "8"}.get))
    assert (tmp_path / "mounts" / "8" / "sub" / "f").read_text() == "x"
    with pytest.raises(Invalid, match="can't be offered"):
        place(store, saved.digest, Tree(root=next_job))
    download(store, saved.manifest, tmp_path / "down")
    assert (tmp_path / "down" / "opt" / "data" / "sub" / "f").read_text() == "x"


def test_existing_files_are_replaced_and_others_kept(store: FolderStore, job: Path, next_job: Path) -> None:
    rich(job)
    saved = save(store, Tree(root=job), ("out",))
    (next_job / "out" / "deep").mkdir(parents=True)
    (next_job / "out" / "model.bin").write_text("old")
    (next_job / "out" / "model.bin").chmod(0o400)
    (next_job / "out" / "run.sh").symlink_to("/etc/passwd")
    (next_job / "out" / "other").write_text("kept")
    assert saved.digest is not None
    for _ in range(2):
        place(store, saved.digest, Tree(root=next_job))
    assert shape(next_job)["out/other"] == ("file", 0o644, b"kept")
    assert {path: what for path, what in shape(next_job).items() if path != "out/other"} == shape(job)


def test_a_job_can_not_alter_the_originals(store: FolderStore, job: Path, next_job: Path) -> None:
    (job / "f").write_text("original")
    saved = save(store, Tree(root=job), ("f",))
    assert saved.digest is not None
    place(store, saved.digest, Tree(root=next_job))
    with (next_job / "f").open("r+") as file:
        file.write("altered!")
    (job / "f").write_text("altered!")
    assert (next_job / "f").stat().st_nlink == 1
    place(store, saved.digest, Tree(root=next_job))
    assert (next_job / "f").read_text() == "original"


def test_under_stands_between_artifact_and_file(store: FolderStore, job: Path, next_job: Path) -> None:
    (job / "models" / "deep").mkdir(parents=True)
    (job / "models" / "deep" / "f").write_text("x")
    (job / "metrics.json").write_text("{}")
    saved = save(store, Tree(root=job), ("models", "metrics.json"))
    assert saved.digest is not None
    for under in ("lr=0.1", "model=a/../b"):
        place(store, saved.digest, Tree(root=next_job), under=under)
    assert sorted(str(path.relative_to(next_job)) for path in next_job.rglob("*") if path.is_file()) == [
        "metrics.json/lr=0.1/metrics.json",
        "metrics.json/model=a%2F..%2Fb/metrics.json",
        "models/lr=0.1/deep/f",
        "models/model=a%2F..%2Fb/deep/f",
    ]


def test_a_place_killed_in_the_middle_is_whole_when_done_again(store: FolderStore, job: Path, next_job: Path) -> None:
    rich(job)
    saved = save(store, Tree(root=job), ("out",))
    assert saved.digest is not None
    done = 0

    def die(_done: int, _total: int) -> None:
        nonlocal done
        done += 1
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place(store, saved.digest, Tree(root=next_job), progress=die)
    place(store, saved.digest, Tree(root=next_job))
    assert shape(next_job) == shape(job)


def test_progress_ends_at_the_total(store: FolderStore, job: Path, next_job: Path) -> None:
    rich(job)
    steps: list[tuple[int, int]] = []
    saved = save(store, Tree(root=job), ("out",), progress=lambda done, total: steps.append((done, total)))
    assert saved.manifest is not None
    assert saved.digest is not None
    assert steps == sorted(steps)
    assert steps[-1] == (saved.manifest.size, saved.manifest.size)
    steps.clear()
    place(store, saved.digest, Tree(root=next_job), progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (saved.manifest.size, saved.manifest.size)


def test_a_set_is_listed_by_artifact(store: FolderStore, job: Path) -> None:
    (job / "models" / "sub").mkdir(parents=True)
    (job / "models" / "sub" / "f").write_bytes(b"12345")
    (job / "models" / "l").symlink_to("sub/f")
    (job / "metrics.json").write_text("{}")
    saved = save(store, Tree(root=job), ("models", "metrics.json"))
    assert saved.manifest is not None
    assert [(one.artifact, one.file, one.path, one.size, one.target) for one in listing(saved.manifest)] == [
        ("metrics.json", "metrics.json", "metrics.json", 2, ""),
        ("models", "l", "models/l", 0, "sub/f"),
        ("models", "sub/f", "models/sub/f", 5, ""),
    ]


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ((), ["a/x.bin", "a/y.json", "b"]),
        (("a",), ["a/x.bin", "a/y.json"]),
        (("./a/",), ["a/x.bin", "a/y.json"]),
        (("*.json",), ["a/y.json"]),
        (("b", "a/x.bin"), ["a/x.bin", "b"]),
        ((".",), ["a/x.bin", "a/y.json", "b"]),
        (("nothing",), []),
    ],
)
def test_a_download_may_choose(
    store: FolderStore, job: Path, tmp_path: Path, only: tuple[str, ...], expected: list[str]
) -> None:
    (job / "a").mkdir()
    for name in ("a/x.bin", "a/y.json", "b"):
        (job / name).write_text(name)
    saved = save(store, Tree(root=job), ("a", "b"))
    assert saved.manifest is not None
    output = tmp_path / "new" / "folder"
    assert [one.path for one in download(store, saved.manifest, output, only=only)] == expected
    assert sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()) == expected


def test_a_download_into_a_file_is_told(store: FolderStore, job: Path) -> None:
    (job / "f").touch()
    saved = save(store, Tree(root=job), ("f",))
    assert saved.manifest is not None
    with pytest.raises(Failed, match="can't create the folder"):
        download(store, saved.manifest, job / "f" / "below")
