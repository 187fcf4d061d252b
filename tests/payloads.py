"""Real webhooks of the forges: GitHub's from an npm package (.ci/payloads), the others' from beside the checkout."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
GITHUB = ROOT / ".venv" / "payloads" / "index.json"
OTHERS = ROOT.parent / "shared" / "payloads"


def github_examples() -> Iterator[tuple[str, dict[str, Any]]]:
    """Event and payload of each."""
    if not GITHUB.exists():
        pytest.skip("GitHub's examples aren't here: .ci/payloads fetches them, with npm")
    for event in json.loads(GITHUB.read_bytes()):
        for example in event["examples"]:
            yield event["name"], example


def payloads(forge: str) -> dict[str, bytes]:
    """The bodies of one of the other forges, by file name."""
    if not OTHERS.exists():
        pytest.skip(f"there are no payloads in {OTHERS}")
    return {path.stem: path.read_bytes() for path in sorted((OTHERS / forge).glob("*.json"))}
