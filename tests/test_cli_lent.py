"""What a user's own machine lends to his runs: secrets from where they were started, volumes, caches; and bash."""

import io
from pathlib import Path

import pytest

from cli import runner_door
from tests.calls import Desk, desk

WORKFLOWS = """\
workflows:
  - name: use
    shell: bash
    secrets: [API_TOKEN, WANDB_KEY]
    volumes: ["data:in/data"]
    cache-dirs: [.cache/pip]
    artifacts: [out]
    commands:
      - 'echo "token=$API_TOKEN key=$WANDB_KEY"; printf "%s\\\\n" "${API_TOKEN:0:5}"'
      - mkdir -p out && cp in/data/precious out/copied
      - date +%N >> .cache/pip/times; wc -l < .cache/pip/times
  - name: pipe
    shell: bash
    commands: [false | true, echo never]
"""
TOKEN, KEY = "tok_0123456789", "wandb-abcdef"


@pytest.fixture
def at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Desk:
    found = desk(tmp_path, capfd)
    found.write(".dstack/workflows.yaml", WORKFLOWS)
    (found.folder / ".dstack/variables.yaml").unlink()
    return found


def test_a_local_run_has_what_is_kept_and_what_is_in_the_environment(
    at: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = at.dstack("run", "use", "--local", "--name", "nowhere")
    assert answer.code == 1
    assert "use can't run with --local: this machine offers no volume data; `dstack-runner config --vol" in answer.err
    assert "nowhere" not in at.dstack("status", "--all").out, "nothing was submitted"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious").write_text("for all\n")
    assert runner_door.main(["config", "--volume", f"data={tmp_path}/data"]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{KEY}\n"))
    assert runner_door.main(["secret", "set", "WANDB_KEY"]) == 0
    answer = at.dstack("run", "use", "--local", "--name", "missing")
    assert answer.code == 1
    assert "has no secret API_TOKEN: say `dstack-runner secret set API_TOKEN` on its machine, or set it" in answer.err
    monkeypatch.setenv("API_TOKEN", TOKEN)
    for count, name in enumerate(("first", "second"), start=1):
        answer = at.dstack("run", "use", "--local", "--no-cache", "--name", name)
        assert answer.code == 0, answer.err
        shown = at.dstack("logs", name).out
        assert f"token={'*' * len(TOKEN)} key={'*' * len(KEY)}\n" in shown
        assert "tok_0\n" in shown, "a part of it is none"
        assert shown.endswith(f"{count}\n")
    out = at.folder.parent / "out"
    assert at.dstack("artifacts", "second", "-o", str(out)).code == 0
    assert (out / "out" / "copied").read_text() == "for all\n"
    assert [str(path.relative_to(out)) for path in sorted(out.rglob("*"))] == ["out", "out/copied"]
    for place in (at.remote, at.folder):
        kept = [path for path in place.rglob("*") if path.is_file()]
        assert not [path for path in kept if TOKEN.encode() in path.read_bytes() or KEY.encode() in path.read_bytes()]


def test_a_pipe_that_fails_ends_a_job_under_bash(at: Desk) -> None:
    answer = at.dstack("run", "pipe", "--local", "--name", "first")
    assert answer.code == 1
    assert "never" not in at.dstack("logs", "first").out
