"""`python -P …/webhooks/__main__.py LINE LISTENING PARENT [DELIVERIES]`: started by `webhooks.server` alone."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    # First: what a user has on PYTHONPATH may be called like a package of ours.
    sys.path.insert(0, str(Path(__file__).absolute().parent.parent))
    importlib.import_module("webhooks.process").main(sys.argv[1:])
