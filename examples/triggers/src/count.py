"""The words of the README, the most frequent first: a model of a sort."""

import re
from collections import Counter
from pathlib import Path

words = re.findall(r"[a-z]+", Path("README.md").read_text(encoding="utf-8").lower())
for word, count in Counter(words).most_common():
    print(count, word)
