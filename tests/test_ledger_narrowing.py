"""Which files of a snapshot a workflow depends on, and that the digest of those is the tree that is checked out."""

import os
from pathlib import Path

import pytest

from dstack.ledger.narrowing import MAX_DEEP, contents, narrowed, write_narrowed
from dstack.ledger.objects import FILE, FOLDER, Entry, Objects, create, tree_id
from dstack.model.errors import Invalid
from tests.repositories import place, sh, work

FILES = {
    "train.py": "1",
    "src/a.py": "2",
    "src/deep/b.py": "3",
    "src/deep/data.csv": "4",
    "data/1.csv": "5",
    "data/.gitattributes": "*.csv text",
    "docs/index.md": "6",
}


class Code:
    """A work tree, and the digests of what globs name in it."""

    def __init__(self, folder: Path, files: dict[str, str]) -> None:
        self.top = work(folder / "code")
        for name, text in files.items():
            self.write(name, text)
        self.place = place(self.top, folder / "cache")

    def write(self, name: str, text: str) -> None:
        path = self.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def names(self, *globs: str) -> set[str]:
        """The files of the narrowed tree, as git lists them."""
        objects = self.place.cache.objects
        tree = write_narrowed(objects, self.place.snapshot().tree, globs)
        listed = sh(self.place.cache.path, "ls-tree", "-r", "--name-only", "-z", tree)
        assert tree == tree_id(narrowed(objects, self.place.snapshot().tree, globs))
        return set(listed.split("\0")[:-1])

    def digest(self, *globs: str) -> str:
        found = contents(self.place.cache.objects, self.place.snapshot().tree, {"w": globs})
        return found.digests["w"]

    def warnings(self, *globs: str) -> tuple[str, ...]:
        return contents(self.place.cache.objects, self.place.snapshot().tree, {"w": globs}).warnings


@pytest.fixture
def code(tmp_path: Path) -> Code:
    return Code(tmp_path, FILES)


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        (["src"], {"src/a.py", "src/deep/b.py", "src/deep/data.csv"}),
        (["src/*.py"], {"src/a.py"}),
        (["src/**/*.py"], {"src/a.py", "src/deep/b.py"}),
        (["**/*.csv"], {"src/deep/data.csv", "data/1.csv", "data/.gitattributes"}),
        (["*.py", "docs/"], {"train.py", "docs/index.md"}),
        (["src/deep", "src/*.py"], {"src/a.py", "src/deep/b.py", "src/deep/data.csv"}),
        (["**"], set(FILES)),
        ([".dstack"], set()),
        (["nowhere/*"], set()),
    ],
)
def test_what_globs_name_is_checked_out_and_nothing_else(code: Code, globs: list[str], expected: set[str]) -> None:
    assert code.names(*globs) == expected


def test_the_attributes_on_the_way_come_along_since_git_writes_files_by_them(code: Code) -> None:
    code.write(".gitattributes", "*.py eol=crlf")
    assert code.names("data/1.csv") == {"data/1.csv", "data/.gitattributes", ".gitattributes"}
    assert code.names("nowhere") == set()


def test_only_files_that_are_named_change_the_digest(code: Code) -> None:
    one, whole = code.digest("src/*.py", "train.py"), code.digest()
    code.write("docs/index.md", "other")
    code.write("src/deep/b.py", "other")
    assert code.digest("src/*.py", "train.py") == one
    assert code.digest() != whole
    code.write("train.py", "other")
    assert code.digest("src/*.py", "train.py") != one


def test_modes_and_names_change_the_digest(code: Code) -> None:
    digests = {code.digest("src")}
    (code.top / "src/a.py").chmod(0o755)
    digests.add(code.digest("src"))
    (code.top / "src/a.py").rename(code.top / "src/c.py")
    digests.add(code.digest("src"))
    assert len(digests) == 3


def test_the_definitions_change_no_digest(code: Code) -> None:
    before = code.digest(), code.digest("**")
    with (code.top / ".dstack/workflows.yaml").open("a") as file:
        file.write("# more\n")
    assert (code.digest(), code.digest("**")) == before


def test_a_glob_that_names_nothing_is_a_warning(code: Code) -> None:
    assert code.warnings("src", "src/deep/*.py", "**/*.csv") == ()
    (warning,) = code.warnings("src", "modles/*.py")
    assert "'modles/*.py'" in warning
    assert "workflow w" in warning


def test_names_that_are_no_text_are_files_too(tmp_path: Path) -> None:
    code = Code(tmp_path, {})
    (code.top / "odd").mkdir()
    Path(os.fsdecode(os.fsencode(code.top / "odd") + b"/\xff\n")).write_text("1")
    (code.top / "link").symlink_to("odd")
    sh(code.top, "config", "core.quotepath", "false")
    assert len(code.names("odd/*")) == 1
    assert code.names("link") == {"link"}


def test_folders_without_end_are_refused(tmp_path: Path) -> None:
    create(tmp_path / "x.git", [])
    objects = Objects.open(tmp_path / "x.git")
    tree = objects.write_tree({b"f": Entry(FILE, objects.write_blob(b"1"))})
    for _ in range(MAX_DEEP + 5):
        tree = objects.write_tree({b"d": Entry(FOLDER, tree)})
    with pytest.raises(Invalid, match="deep"):
        narrowed(objects, tree, ["**/*.py"])
