"""Split scikit-learn's bundled handwritten digits: 8 by 8 pictures of grey, and which digit each shows."""

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

DATA = Path("data")


def main() -> None:
    """Write `data/train.npz` and `data/test.npz`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--test-size", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    digits = load_digits()
    pictures = digits.data / digits.data.max()
    X_train, X_test, y_train, y_test = train_test_split(
        pictures, digits.target, test_size=options.test_size, random_state=options.seed, stratify=digits.target
    )
    DATA.mkdir(exist_ok=True)
    np.savez_compressed(DATA / "train.npz", X=X_train, y=y_train)
    np.savez_compressed(DATA / "test.npz", X=X_test, y=y_test)
    print(f"{len(y_train)} pictures to train on, {len(y_test)} to test with")


if __name__ == "__main__":
    main()
