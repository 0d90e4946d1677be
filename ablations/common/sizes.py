"""A unit of memory, and the threshold of small images, which decides a network's stem and number of threads."""

from __future__ import annotations

MIB = 2**20  # bytes

# Side in pixels. An ImageNet stem would reduce smaller images to a single pixel before the last stage. Networks for
# them keep the resolution, are small, and gain little from a second thread. That the minimum of `data.resolution` and
# the paper's number of groups are 64, too, is unrelated.
SMALL_SIDE = 64
