from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dstack.model.errors import DstackError, Failed, Invalid, Unavailable
from dstack.store.location import default_url, folder_of, open_store

MARKER = "dstack-store.json"


def test_a_store_is_made_once_and_opened_after(tmp_path: Path) -> None:
    url = (tmp_path / "deep" / "store").as_uri()
    store = open_store(url, "r1", create=True)
    store.put("objects/x", b"x")
    again = open_store(url, "r1", create=False)
    assert again.get("objects/x", limit=1) == b"x"
    assert again.url == url
    assert (tmp_path / "deep" / "store" / "r1" / "objects" / "x").read_bytes() == b"x"
    assert (tmp_path / "deep" / "store" / "r1" / MARKER).read_bytes() == b'{"repository":"r1","version":1}'


def test_repositories_in_one_store_do_not_meet(tmp_path: Path) -> None:
    one = open_store(tmp_path.as_uri(), "r1", create=True)
    two = open_store(tmp_path.as_uri(), "r2", create=True)
    one.put("k", b"x")
    assert two.get("k", limit=1) is None
    assert [head.key for head in two.list("")] == [MARKER]


def test_many_may_create_it_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: open_store(tmp_path.as_uri(), "r1", create=True), range(8)))
    assert [head.key for head in stores[0].list("")] == [MARKER]


@pytest.mark.parametrize("folder", ["absent", "there", "r1-without-marker"])
def test_a_store_without_marker_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "r1-without-marker" / "r1").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Failed, match="dstack init --store"):
        open_store((tmp_path / folder).as_uri(), "r1", create=False)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_disk_unmounted_under_an_open_store_is_away_and_not_written_beside(tmp_path: Path) -> None:
    store = open_store((tmp_path / "disk").as_uri(), "r1", create=True)
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    (tmp_path / "disk").mkdir()  # the empty mount point
    with pytest.raises(Unavailable):
        store.put("k", b"x")
    assert list((tmp_path / "disk").iterdir()) == []


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        (b'{"repository":"other","version":1}', "belongs to another repository, other"),
        (b'{"repository":"r1","version":2}', "upgrade dstack"),
        (b"{", "is damaged"),
        (b"", "is damaged"),
        (b"[1]", "is damaged"),
    ],
)
@pytest.mark.parametrize("create", [True, False])
def test_a_marker_that_does_not_fit_is_refused(tmp_path: Path, marker: bytes, message: str, *, create: bool) -> None:
    (tmp_path / "r1").mkdir()
    (tmp_path / "r1" / MARKER).write_bytes(marker)
    with pytest.raises(Failed, match=message):
        open_store(tmp_path.as_uri(), "r1", create=create)
    assert (tmp_path / "r1" / MARKER).read_bytes() == marker


@pytest.mark.parametrize("repository", ["", "..", "a/b", ".x", "a\0"])
def test_an_odd_repository_id_is_refused(tmp_path: Path, repository: str) -> None:
    with pytest.raises(Invalid, match="is not the id"):
        open_store(tmp_path.as_uri(), repository, create=True)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://", "names no bucket"),
        ("s3://key:secret@bucket", "holds no keys"),
        ("s3://bucket/a/../b", "names no bucket"),
        ("s3://bucket?colour=red", "is no option of a store"),
        ("s3://bucket?endpoint_url=ftp://x", "say https://host"),
        ("s3://bucket?endpoint_url=https://key:secret@x", "holds no keys"),
        ("s3://bucket?encryption=rot13", "say one of"),
        ("s3://bucket?addressing=odd", "say path"),
        ("/data/store", "say file:///data/store"),
        ("https://x/y", "say file:///path"),
        ("", "say file:///path"),
        ("file://host/path", "three slashes"),
        ("file:relative", "three slashes"),
        ("file:///", "three slashes"),
        ("file:///a?b", "%3F"),
        ("file:///a%00b", "names no folder"),
        ("http://[", "is not a URL"),
    ],
)
def test_a_wrong_url_is_told_what_would_be_right(url: str, message: str) -> None:
    with pytest.raises(DstackError, match=message) as caught:
        open_store(url, "r1", create=True)
    assert isinstance(caught.value, Invalid)


def test_a_folder_of_any_name_comes_back_from_its_url(tmp_path: Path) -> None:
    for name in ("a b", "ä?#%", "x%2Fy"):
        assert folder_of((tmp_path / name).as_uri()) == tmp_path / name


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HOME": "/h"}, "file:///h/.local/share/dstack/store"),
        ({"HOME": "/h", "XDG_DATA_HOME": "/d a"}, "file:///d%20a/dstack/store"),
        ({"HOME": "/h", "XDG_DATA_HOME": "relative"}, "file:///h/.local/share/dstack/store"),
        ({"HOME": "/h", "XDG_DATA_HOME": ""}, "file:///h/.local/share/dstack/store"),
    ],
)
def test_the_default_lies_among_the_users_data(environ: dict[str, str], expected: str) -> None:
    assert default_url(environ) == expected
