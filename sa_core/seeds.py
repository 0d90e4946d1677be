"""Named random streams: derives independent seeds from one seed."""

from __future__ import annotations

import hashlib


def stream_seed(*parts: int | str) -> int:
    """Returns a 63-bit seed for the stream named by `parts`, independent of the seeds of other names."""
    name = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") >> 1
