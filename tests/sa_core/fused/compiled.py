"""Compiles the Triton kernels for a GPU that is not there, and reads what the machine code says of their speed.

`tests.sa_core.fused.compiled` runs in a process of its own: it replaces Triton's driver, which finds no GPU.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# What a multiprocessor of sm_90 has (CUDA C++ Programming Guide, table "Technical Specifications per Compute
# Capability"): warps, blocks, registers, and bytes of shared memory, of which a block takes 1,024 for the system.
WARPS, BLOCKS, REGISTERS, SHARED, RESERVED = 64, 32, 65_536, 228 * 1024, 1024
CAPABILITY = 90
# In Triton's own code (TTGIR) tiles of feature maps are known by their shape, in that of the assembler (PTX) accesses
# have a width; the order of accesses is that of the source in both, and `.loc` tells where the next one begins.
_TILE_ACCESS = re.compile(r"tt\.(load|store) .*tensor<(\S+?)x!tt\.ptr<(\w+)>.* loc\((\S+)\)")
_ACCESS = re.compile(r"\b(ld|st)\.global\S*?(?:\.v(\d))?\.[busf](\d+)\b")
_LOCATION = re.compile(r"^\s*\.loc\s+(.*?)\s*(?://.*)?$")


@dataclass(frozen=True)
class Launch:
    """A launch of a kernel, compiled but not run.

    Args:
        kernel: its name.
        programs: of the launch.
        arguments: by parameter of the kernel.
        element: type of feature maps in Triton's code, as `bf16`.
        ttgir, ptx: its code, of Triton and for the assembler.
        warps: of a program.
        shared: bytes of shared memory of a program.
        ptxas: path of the assembler.
    """

    kernel: str
    programs: int
    arguments: dict[str, Any]
    element: str
    ttgir: str
    ptx: str
    warps: int
    shared: int
    ptxas: str

    @cached_property
    def _usage(self) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "kernel.ptx")
            path.write_text(self.ptx)
            command = [self.ptxas, "-v", f"--gpu-name=sm_{CAPABILITY}a", str(path), "-o", str(path.with_suffix(".o"))]
            return subprocess.run(command, check=True, capture_output=True, text=True).stderr

    @property
    def registers(self) -> int:
        """Of a thread."""
        return _number(r"Used (\d+) registers", self._usage)

    @property
    def spilled(self) -> int:
        """Bytes that a thread stores to memory for lack of registers, and loads again."""
        return sum(_number(rf"(\d+) bytes spill {kind}", self._usage) for kind in ("stores", "loads"))

    @property
    def occupancy(self) -> int:
        """Warps of a multiprocessor that can be resident at the same time, of `WARPS`."""
        a_warp = -(-32 * self.registers // 256) * 256
        by_registers = REGISTERS // (a_warp * -(-self.warps // 4) * 4)
        by_memory = SHARED // (-(-self.shared // 128) * 128 + RESERVED)
        return self.warps * min(WARPS // self.warps, BLOCKS, by_registers, by_memory)

    @cached_property
    def accesses(self) -> list[tuple[str, int, int]]:
        """How feature maps are accessed, in order: `load` or `store`, elements of a tile, bytes of an instruction.

        Empty for kernels that work on sums and parameters alone.
        """
        if "tile_rows" not in self.arguments:
            return []
        tiles = [found.groups() for found in map(_TILE_ACCESS.search, self.ttgir.splitlines()) if found]
        # Two accesses of one line of the source in a row are one group in the assembler's code.
        grouped = [next(group) for _, group in itertools.groupby(tiles, key=lambda tile: tile[3])]
        widths: list[int] = []
        location, last = "", None
        for line in self.ptx.splitlines():
            if located := _LOCATION.match(line):
                location = located[1]
            elif access := _ACCESS.search(line):
                if location != last:
                    widths.append(int(access[2] or 1) * int(access[3]) // 8)
                last = location
        assert len(grouped) == len(widths), f"{self.kernel}: {len(grouped)} accesses, {len(widths)} in machine code"
        found = []
        for (kind, shape, element, _), width in zip(grouped, widths, strict=True):
            *sizes, last_size = map(int, shape.split("x"))
            if sizes and element == self.element:
                found.append((str(kind), sizes[0] * last_size, width))
        return found

    @property
    def load_widths(self) -> list[int]:
        """Bytes that a thread loads of a feature map with one instruction, each width once."""
        return sorted({width for kind, _, width in self.accesses if kind == "load"})

    @property
    def maps_moved(self) -> float:
        """How many times feature maps are read or written in whole."""
        sizes = [size for _, size, _ in self.accesses]
        return sum(sizes) / (self.arguments["tile_rows"] * self.arguments["tile_width"]) if sizes else 0.0


@contextmanager
def compiling(element: str = "bf16") -> Iterator[list[Launch]]:
    """Compiles what is launched meanwhile for `CAPABILITY` instead of running it; yields the list of launches.

    Args:
        element: type of feature maps in Triton's code: `bf16`, `fp16` or `fp32`.

    Replaces Triton's driver for good: call it in a process of its own, in which nothing is to run on a GPU.
    """
    import triton
    from triton.backends.compiler import GPUTarget

    launches: list[Launch] = []

    class Launcher:
        """What a compiled kernel is launched by."""

        def __init__(self, source: Any, metadata: Any) -> None:
            self.source, self.metadata = source, metadata

        def __call__(self, *arguments: Any) -> None:
            grid, given = arguments[:3], arguments[9:]  # between them stream, function, metadata and hooks
            function = self.source.fn
            (compiled,) = (kernel for kernel in function.device_caches[0][0].values() if kernel.src is self.source)
            launches.append(
                Launch(
                    function.fn.__name__,
                    grid[0] * grid[1] * grid[2],
                    dict(zip(function.arg_names, given, strict=True)),
                    element,
                    compiled.asm["ttgir"],
                    compiled.asm["ptx"],
                    self.metadata.num_warps,
                    self.metadata.shared,
                    triton.knobs.nvidia.ptxas.path,
                )
            )

    utils = SimpleNamespace(
        get_device_properties=lambda _: {"max_shared_mem": SHARED - RESERVED},
        load_binary=lambda *_: (object(), object(), 0, 0, 1024),
        unload_module=lambda _: None,
    )
    absent = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", CAPABILITY, 32),
        get_current_device=lambda: 0,
        get_current_stream=lambda _=None: 0,
        launcher_cls=Launcher,
        utils=utils,
    )
    triton.runtime.driver.set_active(absent)
    yield launches


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found is not None, f"the assembler printed no {pattern!r}: {text}"
    return int(found[1])
