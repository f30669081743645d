"""How hard the tests of hostile input and crashes try, and how they do damage."""

import os
import random
from pathlib import Path

#: 1 in `make test`; `make torture` tries ten times as many cases.
TORTURE = int(os.environ.get("CLOTLINE_TORTURE", "1"))


def flip_bit(content: bytes, rng: random.Random) -> bytes:
    """A copy of ``content`` with one bit of it turned over."""
    damaged = bytearray(content)
    damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


class Touch:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)
