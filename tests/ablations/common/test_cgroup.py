from __future__ import annotations

import math
from pathlib import Path

import pytest

from ablations.common import cgroup

MIB = 2**20


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert cgroup.cores(tmp_path) == math.inf
    assert cgroup.free_memory(tmp_path) == math.inf


@pytest.mark.parametrize(
    ("inner", "outer", "cores"),
    [
        ("150000 100000", "max 100000", 1.5),
        ("max 100000", "400000 100000", 4.0),
        ("max 100000", "max 100000", math.inf),
    ],
)
def test_version_2_has_limits_of_processor_time_in_any_enclosing_group(
    tmp_path: Path, inner: str, outer: str, cores: float
) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/batch/job\n",
            "sys/fs/cgroup/batch/job/cpu.max": inner,
            "sys/fs/cgroup/batch/cpu.max": outer,
        },
    )
    assert cgroup.cores(root) == cores


def test_version_2_counts_unused_pages_of_files_as_free(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/job\n",
            "sys/fs/cgroup/job/memory.max": str(100 * MIB),
            "sys/fs/cgroup/job/memory.current": str(80 * MIB),
            "sys/fs/cgroup/job/memory.stat": f"anon {50 * MIB}\ninactive_file {30 * MIB}\n",
            "sys/fs/cgroup/memory.max": "max\n",
        },
    )
    assert cgroup.free_memory(root) == 50 * MIB


@pytest.mark.parametrize("path", ["/job", "/docker/of/the/host"])  # the second is not visible in a container
def test_version_1_has_a_folder_for_each_controller(tmp_path: Path, path: str) -> None:
    group = "" if "host" in path else "job/"
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": f"4:memory:{path}\n2:cpu,cpuacct:{path}\n1:name=systemd:/\n",
            f"sys/fs/cgroup/memory/{group}memory.limit_in_bytes": str(100 * MIB),
            f"sys/fs/cgroup/memory/{group}memory.usage_in_bytes": str(90 * MIB),
            f"sys/fs/cgroup/memory/{group}memory.stat": f"total_inactive_file {5 * MIB}\n",
            f"sys/fs/cgroup/cpu,cpuacct/{group}cpu.cfs_quota_us": "250000",
            f"sys/fs/cgroup/cpu,cpuacct/{group}cpu.cfs_period_us": "100000",
        },
    )
    assert cgroup.cores(root) == 2.5
    assert cgroup.free_memory(root) == 15 * MIB


def test_in_version_1_a_negative_quota_means_no_limit(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "2:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
    )
    assert cgroup.cores(root) == math.inf
