"""What the expert's kernels can run, as far as sizes and settings say; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

INTEGER_FORMATS = ("w4a8", "w8a8")
TOKENS = 16  # rows of a tile; the buffers' tokens are a multiple of it
# Of pi0.5's expert: the only ones that the kernel in CUDA C++ is written for.
SIZES = {"width": 1024, "hidden": 4096, "heads": 8, "kv_heads": 1, "head_dim": 256}


@dataclass(frozen=True)
class ProductFormat:
    """How one product of the expert is computed, layers that read the same input merged."""

    name: str  # one of `INTEGER_FORMATS`, or a dtype
    groups: int = 1  # scales per row
    block: int = 1  # channels of a rotation; 1: none
    act_bits: int = 16


def shape_reason(sizes: Mapping[str, int]) -> str | None:
    """Why there are no kernels for the fields of a `ExpertShape`; None: there are."""
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
    """Why one kernel cannot make all products of an expert's layers; None: it can."""
    floats = sum(product.name not in INTEGER_FORMATS for product in formats)
    if floats:
        return f"{floats} of {len(formats)} products are not of integers"
    if any(product.groups > 1 for product in formats):
        return "its weights have scales of groups of channels"
    if len(set(formats)) > 1:
        return "its products have several formats"
    return None


def loop_sizes_reason(sizes: Mapping[str, int]) -> str | None:
    """Why one kernel cannot hold an expert of these sizes; None: it can."""
    for name, size in SIZES.items():
        if sizes[name] != size:
            return f"it has a {name} of {sizes[name]}, not {size}"
    return None
