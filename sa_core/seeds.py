"""Random streams with names: one seed becomes as many unrelated ones as are needed."""

from __future__ import annotations

import hashlib


def stream_seed(*parts: int | str) -> int:
    """Returns a 63-bit seed for the stream that `parts` name, unrelated to that of any other name."""
    name = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") >> 1
