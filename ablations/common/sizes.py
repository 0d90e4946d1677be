"""A unit of memory, and which images are small: one threshold for a network's stem and the threads that train it."""

from __future__ import annotations

MIB = 2**20  # bytes

# Side in pixels. Of a smaller image an ImageNet stem would leave a point before the last stage, so a network for such
# images keeps their resolution, is small, and gains little from a second thread. The least `data.resolution` and the
# paper's number of groups are 64, too, for other reasons.
SMALL_SIDE = 64
