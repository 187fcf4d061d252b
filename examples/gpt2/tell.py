"""Writes with a model that was trained."""

import argparse
from pathlib import Path

import letters

parser = argparse.ArgumentParser()
parser.add_argument("--length", type=int, required=True)
length = parser.parse_args().length
story = letters.write(letters.load(Path("checkpoint/state.json")), length, 1)
Path("stories").mkdir(exist_ok=True)
Path("stories/story.txt").write_text(story)
print(story)
