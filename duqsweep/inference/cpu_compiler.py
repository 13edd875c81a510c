"""How inductor compiles for a CPU: settings with which it takes less time, and its code too."""

from __future__ import annotations

import subprocess
from functools import cache
from typing import Any

import torch

# g++ 12 and clang 12 know all instructions that inductor may ask for.
KNOWS_VECTORS = 12
VECTORS = ("AVX2", "AVX512")


@cache
def cpu_options() -> dict[str, Any]:
    """Options of torch.compile.

    Kernels of a layer are compiled in one file, and called from C++: less time for g++, which loads
    torch's headers once per layer, and a tenth less per call. Inductor tries which vector
    instructions compiler and processor know, in 7 s, unless both are known to.
    """
    options: dict[str, Any] = {"cpp_wrapper": True}
    if torch.backends.cpu.get_cpu_capability() in VECTORS and compiler_version() >= KNOWS_VECTORS:
        options["cpp.vec_isa_ok"] = True
    return options


def compiler_version() -> int:
    """Major version of the C++ compiler that inductor takes; 0 where it does not say one."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        command = [get_cpp_compiler(), "-dumpversion"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0
    major = said.partition(".")[0].strip()
    return int(major) if major.isdigit() else 0
