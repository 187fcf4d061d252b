"""Stands for a download: the same model each time, made of its name."""

import argparse
import json
import random
from pathlib import Path

from letters import LETTERS

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
model = parser.parse_args().model
folder = Path("models") / model
folder.mkdir(parents=True, exist_ok=True)
chance = random.Random(model)
logits = [[chance.gauss(0, 0.1) for _ in LETTERS] for _ in LETTERS]
(folder / "model.json").write_text(json.dumps({"model": model, "logits": logits}))
print(f"downloaded {model}: {len(LETTERS) ** 2} parameters")
