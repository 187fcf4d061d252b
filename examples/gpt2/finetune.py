"""Trains a model on, from where the last checkpoint left it. A stop (SIGTERM) leaves a checkpoint, too."""

import argparse
import json
import signal
import time
from pathlib import Path

import letters

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--learning_rate", type=float, required=True)
parser.add_argument("--memory", required=True)
parser.add_argument("--optimizer", required=True)
parser.add_argument("--steps", type=int, required=True)
parser.add_argument("--step_seconds", type=float, required=True)
given = parser.parse_args()

STATE = Path("checkpoint/state.json")
stopping = []
signal.signal(signal.SIGTERM, lambda number, _frame: stopping.append(number))


def save(done: int, logits: letters.Logits, surprise: float) -> None:
    """Whole or not at all: a checkpoint may be read at any time."""
    STATE.parent.mkdir(exist_ok=True)
    for path, content in (
        (STATE, {"step": done, "logits": logits}),
        (STATE.with_name("metrics.json"), {"step": done, "loss": round(surprise, 4)}),
    ):
        scratch = path.with_suffix(".new")
        scratch.write_text(json.dumps(content))
        scratch.replace(path)


tokens = json.loads(Path("datasets/tokens.json").read_text())
if STATE.exists():
    state = json.loads(STATE.read_text())
    done, logits = state["step"], state["logits"]
    print(f"going on from the checkpoint of step {done}", flush=True)
else:
    done, logits = 0, letters.load(Path("models") / given.model / "model.json")
    print(f"training {given.model} with {given.optimizer}, {given.memory}, rate {given.learning_rate}", flush=True)

while done < given.steps and not stopping:
    # The rate is that of a large model; this one has a thousand parameters, and can take longer strides.
    letters.step(logits, tokens, given.learning_rate * 1_000_000)
    done += 1
    if done % 10 == 0 or done == given.steps:
        print(f"step {done}: loss {letters.loss(logits, tokens):.4f}", flush=True)
        save(done, logits, letters.loss(logits, tokens))
    time.sleep(given.step_seconds)

save(done, logits, letters.loss(logits, tokens))
samples = Path("samples")
samples.mkdir(exist_ok=True)
(samples / f"step-{done}.txt").write_text(letters.write(logits, 200, done))
print(f"saved a checkpoint at step {done}", flush=True)
if stopping:
    raise SystemExit(128 + stopping[0])
