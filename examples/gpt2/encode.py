"""Encodes a text for a model."""

import argparse
import json
from pathlib import Path

from letters import encode

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--text", type=Path, required=True)
given = parser.parse_args()
if not (Path("models") / given.model / "model.json").exists():
    message = f"the model {given.model} isn't here"
    raise SystemExit(message)
folder = Path("datasets")
folder.mkdir(exist_ok=True)
tokens = encode(given.text.read_text())
(folder / "tokens.json").write_text(json.dumps(tokens))
print(f"encoded {len(tokens)} letters of {given.text} for {given.model}")
