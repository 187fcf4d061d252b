"""`dstack-runner config`: volumes and whether the machine can be taken away."""

from pathlib import Path

import pytest

from cli import runner_door
from runner.config import read_config


def config(state: Path, *args: str) -> int:
    return runner_door.main(["--state", str(state), "config", *args])


def test_folders_are_offered_by_name_until_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    state = tmp_path / "state"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert config(state, "--volume", "data=a", "--volume", f"models={tmp_path}/b", "--interruptible") == 0
    assert f"Volume:       data at {tmp_path}/a\nVolume:       models at {tmp_path}/b\n" in capsys.readouterr().out
    found = read_config(state)
    assert found is not None
    assert (found.volumes, found.interruptible) == ({"data": f"{tmp_path}/a", "models": f"{tmp_path}/b"}, True)
    assert config(state, "--volume", "none") == 0
    found = read_config(state)
    assert found is not None
    assert (found.volumes, found.interruptible) == ({}, True)
    assert config(state, "--no-interruptible") == 0
    assert "Interruptible" not in capsys.readouterr().out.split("\n", 1)[0]
    found = read_config(state)
    assert found is not None
    assert not found.interruptible


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["data"], "write NAME=DIR"),
        (["data="], "write NAME=DIR"),
        (["data=/nowhere/at/all"], "there is no folder /nowhere/at/all"),
        (["data=/", "data=/tmp"], "stands here for / already"),
        (["a/b=/"], "name of a volume"),
    ],
)
def test_what_cannot_be_a_volume_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], texts: list[str], words: str
) -> None:
    assert config(tmp_path / "state", *[part for text in texts for part in ("--volume", text)]) != 0
    assert words in capsys.readouterr().err
    assert read_config(tmp_path / "state") is None
