"""Count words, with the standard library alone: all that a slim image holds."""

import argparse
import collections
import json
import re
from pathlib import Path


def main() -> None:
    """Write `counts/words.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--top", type=int, default=5)
    options = parser.parse_args()

    words = re.findall(r"[a-z']+", Path("text/zen.txt").read_text().lower())
    counts = dict(collections.Counter(words).most_common(options.top))
    Path("counts").mkdir(exist_ok=True)
    Path("counts/words.json").write_text(json.dumps(counts, indent=2) + "\n")
    for word, count in counts.items():
        print(f"{count:4} {word}")


if __name__ == "__main__":
    main()
