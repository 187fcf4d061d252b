"""Bytes from a container: taken apart, skipped, appended after a crash, and unpacked without leaving the target."""

import io
import struct
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.errors import Invalid
from runner.frames import STDERR, STDOUT, SYSTEM
from runner.multiplexed import pieces, without
from runner.output import NotWritten, OutputFile
from runner.streams import Chunks
from runner.unpack import unpack
from tests.attempts import frames, output

SPOKEN = st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=300)), max_size=12)


def joined(found: list[tuple[int, bytes]], stream: int) -> bytes:
    return b"".join(data for one, data in found if one == stream)


def sent(spoken: list[tuple[int, bytes]]) -> bytes:
    return b"".join(struct.pack(">BxxxI", stream, len(data)) + data for stream, data in spoken)


@given(SPOKEN, st.integers(0, 5000))
def test_a_stream_that_breaks_off_gives_all_that_came(spoken: list[tuple[int, bytes]], cut: int) -> None:
    whole = sent(spoken)
    found = list(pieces(io.BytesIO(whole[:cut]).read))
    for stream in (STDOUT, STDERR):
        assert joined(spoken, stream).startswith(joined(found, stream))
    if cut >= len(whole):
        assert [piece for piece in found if piece[1]] == [piece for piece in spoken if piece[1]]


@given(SPOKEN, st.integers(0, 400), st.integers(0, 400))
def test_what_is_known_already_is_skipped_by_stream(spoken: list[tuple[int, bytes]], out: int, err: int) -> None:
    found = list(without({STDOUT: out, STDERR: err}, iter(spoken)))
    assert joined(found, STDOUT) == joined(spoken, STDOUT)[out:]
    assert joined(found, STDERR) == joined(spoken, STDERR)[err:]
    assert all(data for _, data in found)


@given(st.binary(max_size=60))
def test_output_goes_on_behind_a_torn_frame(torn: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = OutputFile(folder / "output")
        first.write(STDOUT, b"one")
        first.write(STDERR, b"two!")
        first.write(SYSTEM, b"of dstack")
        first.close()
        with (folder / "output").open("ab") as file:
            file.write(struct.pack(">BdI", STDOUT, 0.0, 100) + torn)
        second = OutputFile(folder / "output")
        assert {second.seen[stream] for stream in (STDOUT, STDERR)} == {3, 4}
        second.write(STDOUT, b"three")
        second.close()
        assert [frame.data for frame in frames(folder)] == [b"one", b"two!", b"of dstack", b"three"]


def test_output_begins_anew_behind_garbage(tmp_path: Path) -> None:
    (tmp_path / "output").write_bytes(b"\xff" * 100)
    file = OutputFile(tmp_path / "output")
    file.write(STDOUT, b"x" * 200_000)
    file.close()
    assert output(tmp_path) == b"x" * 200_000


def test_a_full_disk_is_told_and_leaves_whole_frames(tmp_path: Path) -> None:
    file = OutputFile(tmp_path / "output")
    file.write(STDOUT, b"before")
    real, file._file = file._file, Stub(tmp_path / "output", "ab")
    with pytest.raises(NotWritten, match="No space left"):
        file.write(STDOUT, b"lost" * 100)
    file._file.close()
    file._file = real
    file.write(STDOUT, b"after")
    file.close()
    assert [frame.data for frame in frames(tmp_path)] == [b"before", b"after"]
    assert file.seen[STDOUT] == len(b"beforeafter")


class Stub(io.FileIO):
    """A file on a disk that takes ten more bytes."""

    def write(self, data: object, /) -> int:
        assert isinstance(data, bytes)
        if self.tell() > 30:
            raise OSError(28, "No space left on device")
        return super().write(data[:10])


@given(st.lists(st.binary(max_size=50)), st.integers(1, 40))
def test_chunks_read_as_a_file(chunks: list[bytes], size: int) -> None:
    file = io.BufferedReader(Chunks(iter(chunks)), buffer_size=size)
    assert file.read() == b"".join(chunks)


def archive(*members: tuple[str, bytes, str]) -> tarfile.TarFile:
    """An archive of (name, type, link target or content)."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as writing:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o755
            if kind == tarfile.REGTYPE:
                info.size = len(text)
            else:
                info.linkname = text
            writing.addfile(info, io.BytesIO(text.encode()) if kind == tarfile.REGTYPE else None)
    data.seek(0)
    return tarfile.open(fileobj=data, mode="r|")


HOSTILE = {
    "absolute": [("/etc/evil", tarfile.REGTYPE, "x")],
    "parent": [("out", tarfile.DIRTYPE, ""), ("out/../../evil", tarfile.REGTYPE, "x")],
    "through a link": [
        ("out", tarfile.DIRTYPE, ""),
        ("out/link", tarfile.SYMTYPE, "../.."),
        ("out/link/evil", tarfile.REGTYPE, "x"),
    ],
    "hard link away": [("out", tarfile.DIRTYPE, ""), ("out/hard", tarfile.LNKTYPE, "../../secret")],
    "hard link to absolute": [("out", tarfile.DIRTYPE, ""), ("out/hard", tarfile.LNKTYPE, "/etc/passwd")],
    "twice": [("out", tarfile.DIRTYPE, ""), ("out/a", tarfile.REGTYPE, "1"), ("out/a", tarfile.REGTYPE, "2")],
    "link over file": [("out", tarfile.DIRTYPE, ""), ("out/a", tarfile.REGTYPE, "1"), ("out/a", tarfile.SYMTYPE, "/")],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_lands_nowhere_else(tmp_path: Path, members: list[tuple[str, bytes, str]]) -> None:
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "inner").mkdir()
    with archive(*members) as hostile, pytest.raises((Invalid, OSError)):
        unpack(hostile, tmp_path / "inner" / "target")
    assert {path.name for path in tmp_path.iterdir()} == {"secret", "inner"}
    assert {path.name for path in (tmp_path / "inner").iterdir()} <= {"target"}


def test_devices_and_pipes_are_left_out(tmp_path: Path) -> None:
    members = [("out", tarfile.DIRTYPE, ""), ("out/pipe", tarfile.FIFOTYPE, ""), ("out/disk", tarfile.BLKTYPE, "")]
    with archive(*members) as found:
        unpack(found, tmp_path / "target")
    assert list((tmp_path / "target").iterdir()) == []
