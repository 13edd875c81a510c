"""What the expert's kernels can run, judged by sizes and settings; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LOOP_FORMATS = ("w4a8", "w8a8", "e4m3")  # of the persistent kernel; all its products have the same
TOKENS = 16  # rows of a tile; buffers have a multiple of it
# Sizes of pi0.5's expert, the only ones that the persistent kernel in CUDA C++ supports.
SIZES = {"width": 1024, "hidden": 4096, "heads": 8, "kv_heads": 1, "head_dim": 256}


@dataclass(frozen=True)
class ProductFormat:
    """How one product of the expert is computed, after layers with the same input are merged."""

    name: str  # one of `LOOP_FORMATS`, or a dtype
    groups: int = 1  # scales per row
    block: int = 1  # channels per rotation block; 1: no rotation
    act_bits: int = 16  # 16: activations are not quantized


def shape_reason(sizes: Mapping[str, int]) -> str | None:
    """Why the Triton kernels cannot run an `ExpertShape` with these fields; None: they can."""
    if not 1 <= sizes["tokens"] <= 64:
        return f"the expert's kernels take 1 to 64 tokens, got {sizes['tokens']}"
    for name in ("width", "hidden", "head_dim"):
        value = sizes[name]
        if value & (value - 1) or value < 32:
            return f"the expert's kernels take a {name} that is a power of two >= 32, got {value}"
    mixed = sizes["heads"] * sizes["head_dim"]
    if mixed & (mixed - 1):
        return f"the expert's kernels take heads * head_dim that is a power of two, got {mixed}"
    return None


def loop_formats_reason(formats: Sequence[ProductFormat]) -> str | None:
    """Why the persistent kernel cannot compute products in these formats; None: it can."""
    floats = sum(product.name not in LOOP_FORMATS for product in formats)
    if floats:
        return f"{floats} of {len(formats)} products do not multiply integers or e4m3"
    if any(product.groups > 1 for product in formats):
        return "its weights have a scale per group of channels"
    if len(set(formats)) > 1:
        return "its products have several formats"
    return None


def loop_sizes_reason(sizes: Mapping[str, int]) -> str | None:
    """Why the persistent kernel cannot run an expert of these sizes; None: it can."""
    for name, size in SIZES.items():
        if sizes[name] != size:
            return f"it has a {name} of {sizes[name]}, not {size}"
    return None
