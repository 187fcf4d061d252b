"""Measure the model on pictures it has never seen, and draw which digits it takes for which."""

import json
from pathlib import Path

import joblib
import matplotlib as mpl
import numpy as np
from sklearn.metrics import ConfusionMatrixDisplay, classification_report

mpl.use("Agg")  # a runner has no screen
from matplotlib import pyplot as plt

REPORTS = Path("reports")


def write_metrics(truth: np.ndarray, guess: np.ndarray) -> float:
    """`reports/metrics.json`: accuracy, and precision and recall for each digit. Gives the accuracy."""
    report = classification_report(truth, guess, output_dict=True)
    accuracy = float(report["accuracy"])
    digits = {name: values for name, values in report.items() if name.isdigit()}
    metrics = {"accuracy": accuracy, "test_pictures": len(truth), "digits": digits}
    (REPORTS / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    return accuracy


def draw_confusion(truth: np.ndarray, guess: np.ndarray, title: str) -> None:
    """`reports/confusion.png`: a row for each digit, a column for what it was taken for."""
    figure, axes = plt.subplots(figsize=(6, 6))
    ConfusionMatrixDisplay.from_predictions(truth, guess, ax=axes, cmap="Blues", colorbar=False)
    axes.set_title(title)
    figure.savefig(REPORTS / "confusion.png", dpi=120, bbox_inches="tight")
    plt.close(figure)


def main() -> None:
    """Load what `prepare` and `train` left, and report."""
    data = np.load("data/test.npz")
    model = joblib.load("models/model.joblib")
    guess = model.predict(data["X"])
    REPORTS.mkdir(exist_ok=True)
    accuracy = write_metrics(data["y"], guess)
    draw_confusion(data["y"], guess, f"{type(model).__name__}: accuracy {accuracy:.4f}")
    print(classification_report(data["y"], guess))
    print(f"accuracy on the test part {accuracy:.4f}")


if __name__ == "__main__":
    main()
