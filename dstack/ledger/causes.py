"""What remotes, forges, ssh and curl say when they refuse: in regular expressions, with meaning and way out. Pure."""

from dstack.ledger.cause import NO_RIGHT, lasting
from dstack.ledger.causes_connection import CONNECTION
from dstack.ledger.causes_forge import FORGE

_STORING = (
    lasting(
        "you may read there but not write",
        NO_RIGHT,
        r"unable to create temporary object directory",
        r"insufficient permission for adding an object",
    ),
    lasting(
        "the remote could not store it",
        "look at its disk space and at who owns its files",
        r"unpack(?:er)?[ -](?:failed|error)",
        r"unpack failed",
        r"No space left on device",
    ),
)

# The first that fits counts: what is said most exactly stands first.
CAUSES = (*FORGE, *CONNECTION, *_STORING)
