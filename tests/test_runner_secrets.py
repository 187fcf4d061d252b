"""`dstack-runner secret`: kept for the owner's eyes, by name, and never shown."""

import io
from pathlib import Path

import pytest

from cli import runner_door
from dstack.model.errors import Failed, Invalid
from runner.secretfile import FILE, read_secrets, remove_secret, set_secret


def call(folder: Path, *words: str, given: str, patch: pytest.MonkeyPatch) -> int:
    patch.setattr("sys.stdin", io.StringIO(given))
    return runner_door.main(["--state", str(folder), "secret", *words])


def test_a_secret_is_kept_for_the_owner_alone_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "state"
    assert call(folder, "set", "HF_TOKEN", given="pl4nted\n", patch=monkeypatch) == 0
    assert call(folder, "set", "KEY", given="line 1\nline 2\n\n", patch=monkeypatch) == 0
    assert read_secrets(folder) == {"HF_TOKEN": "pl4nted", "KEY": "line 1\nline 2\n"}
    assert (folder / FILE).stat().st_mode & 0o777 == 0o600
    assert call(folder, "list", given="", patch=monkeypatch) == 0
    assert call(folder, "remove", "KEY", given="", patch=monkeypatch) == 0
    assert call(folder, "remove", "KEY", given="", patch=monkeypatch) == 1
    out, err = capfd.readouterr()
    assert "HF_TOKEN\nKEY\n" in out
    assert "keeps no secret 'KEY'" in err
    assert "pl4nted" not in out + err
    assert [path.name for path in folder.iterdir()] == [FILE]


def test_what_is_there_already_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    set_secret(tmp_path, "A", "one")
    set_secret(tmp_path, "B", "two")
    set_secret(tmp_path, "A", "three")
    assert read_secrets(tmp_path) == {"A": "three", "B": "two"}
    assert not remove_secret(tmp_path, "C")


@pytest.mark.parametrize("name", ["", "a-b", "1A", "A=B", "A B", "é"])
def test_a_name_that_no_variable_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid, match="can't name a secret"):
        set_secret(tmp_path, name, "value")


@pytest.mark.parametrize("value", ["", "a\0b", "x" * 200_000])
def test_a_value_that_no_variable_can_have_is_refused_and_not_repeated(tmp_path: Path, value: str) -> None:
    with pytest.raises(Invalid, match="it was not kept"):
        set_secret(tmp_path, "A", value)
    assert read_secrets(tmp_path) == {}


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    set_secret(tmp_path, "A", "one")
    (tmp_path / FILE).chmod(0o640)
    with pytest.raises(Failed, match="chmod 600"):
        read_secrets(tmp_path)


def test_a_broken_file_is_told_without_its_content(tmp_path: Path) -> None:
    set_secret(tmp_path, "A", "one")
    (tmp_path / FILE).write_text('{"secrets": {"A": "pl4nted"')
    with pytest.raises(Invalid) as caught:
        read_secrets(tmp_path)
    assert "pl4nted" not in str(caught.value)
