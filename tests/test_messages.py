"""Every sentence that the program can say stands in a golden file, to be read as a user will read it.

`REWRITE_GOLDEN=1 pytest tests/test_messages.py` writes it anew; then read what has changed before you commit it.
"""

import os
from pathlib import Path

from tests.messages import catalogue, sentences

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden" / "messages.txt"


def test_every_sentence_is_in_the_golden_file() -> None:
    found = catalogue(ROOT)
    if os.environ.get("REWRITE_GOLDEN") == "1":
        GOLDEN.write_text(found, encoding="utf-8")
    assert found == GOLDEN.read_text(encoding="utf-8")


def test_sentences_are_found_whole_with_their_values_named(tmp_path: Path) -> None:
    (tmp_path / "cli").mkdir()
    doc, raised = '    """A docstring of some words."""', '    raise E(f"no {a.b} in the " f"{a!r} there")'
    code = f'def f(a):\n{doc}\n{raised}\n    x = "two words"\n'
    (tmp_path / "cli/one.py").write_text(code)
    assert sentences(tmp_path) == {"cli/one.py": ["no {a.b} in the {a} there"]}
