"""More machines on this one: network namespaces, each with one cable to us that can be cut. Only for root."""

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """A namespace `name`: it is at `address`, and reaches us at `ours`."""

    name: str
    cable: str
    ours: str
    address: str

    def command(self, *words: str) -> Sequence[str]:
        """The words, to be run on this machine."""
        return ("ip", "netns", "exec", self.name, *words)

    def cut(self) -> None:
        """Pull the cable: packets are lost, and nobody is told."""
        _ip("link", "set", self.cable, "down")

    def heal(self) -> None:
        """Plug it in again."""
        _ip("link", "set", self.cable, "up")


_NUMBERS = itertools.count()


def can_make() -> bool:
    """Whether this user may make machines here."""
    return os.geteuid() == 0 and shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


@contextmanager
def machine() -> Iterator[Machine]:
    """A machine, until the end of the block; its processes should have ended by then."""
    number = next(_NUMBERS)
    # Tests run side by side: the process id keeps names and networks apart.
    pid = os.getpid()
    name, cable = f"ds{pid}-{number}", f"ds{pid}v{number}"
    net = f"10.{64 + pid // 256 % 64}.{pid % 256}"
    made = Machine(name=name, cable=cable, ours=f"{net}.{4 * number + 1}", address=f"{net}.{4 * number + 2}")
    _ip("netns", "add", name)
    try:
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("addr", "add", f"{made.ours}/30", "dev", cable)
        _ip("link", "set", cable, "up")
        _ip("-n", name, "addr", "add", f"{made.address}/30", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        _ip("-n", name, "link", "set", "lo", "up")
        yield made
    finally:
        _ip("netns", "del", name)


def _ip(*words: str) -> None:
    subprocess.run(("ip", *words), check=True, capture_output=True, timeout=20)
