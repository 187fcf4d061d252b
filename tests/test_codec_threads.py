"""Values are read in several threads at once, from the first moment on."""

import subprocess
import sys

# Each round has classes that nobody has read yet; threads are switched as often as Python can.
RACE = """
import sys, threading
import msgspec
from dstack.model.codec import Value, convert, decode

def read(number, outer):
    if number % 2:
        return decode(b'{"one":{"a":1,"b":{"x":2}},"more":[{"a":1}]}', outer, "it")
    return convert({"one": {"a": 1, "b": {"x": 2}}, "more": [{"a": 1}]}, outer)

sys.setswitchinterval(1e-6)
for _ in range(30):
    class Inner(Value, frozen=True, kw_only=True):
        a: int = 0
        b: dict[str, int] = {}
    class Outer(Value, frozen=True, kw_only=True):
        one: Inner
        more: tuple[Inner, ...] = ()
    barrier, found = threading.Barrier(4), []
    def work(number):
        barrier.wait()
        found.append(read(number, Outer))
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [Outer(one=Inner(a=1, b={"x": 2}), more=(Inner(a=1),))] * 4
print("fine")
"""


def test_what_nobody_has_read_yet_is_read_by_several_threads() -> None:
    done = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
