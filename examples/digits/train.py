"""Fit a model to the training part. Every variable of the workflow comes as a flag."""

import argparse
import json
import time
from pathlib import Path

import joblib
import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

MODELS = Path("models")


def flags() -> argparse.Namespace:
    """The variables of `train` in variables.yaml, and the global seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=("svm", "forest", "mlp"), default="svm")
    parser.add_argument("--C", type=float, default=10.0)
    parser.add_argument("--gamma", type=float, default=0.02)
    parser.add_argument("--n_estimators", type=int, default=200)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def make_model(options: argparse.Namespace) -> ClassifierMixin:
    """The model asked for, not yet fitted."""
    if options.model == "svm":
        return SVC(C=options.C, gamma=options.gamma, random_state=options.seed)
    if options.model == "forest":
        return RandomForestClassifier(n_estimators=options.n_estimators, random_state=options.seed)
    return MLPClassifier(hidden_layer_sizes=(options.hidden,), max_iter=400, random_state=options.seed)


def main() -> None:
    """Write `models/model.joblib`, and how the training went in `models/train.json`."""
    options = flags()
    data = np.load("data/train.npz")
    model = make_model(options)
    print(f"training {model} on {len(data['y'])} pictures")
    start = time.perf_counter()
    model.fit(data["X"], data["y"])
    seconds = time.perf_counter() - start

    accuracy = float(model.score(data["X"], data["y"]))
    MODELS.mkdir(exist_ok=True)
    joblib.dump(model, MODELS / "model.joblib")
    record = {**vars(options), "train_accuracy": accuracy, "train_seconds": round(seconds, 3)}
    (MODELS / "train.json").write_text(json.dumps(record, indent=2) + "\n")
    print(f"accuracy on the training part {accuracy:.4f}, after {seconds:.2f} s")


if __name__ == "__main__":
    main()
