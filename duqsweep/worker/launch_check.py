"""Whether the kernels that a trial asks for really ran, from what a call was seen to do."""

from __future__ import annotations

import re
from collections.abc import Mapping

from duqsweep.checkpoint.sizes import EXPERT, LLM
from duqsweep.errors import EvaluationError
from duqsweep.quant.select import PACKED_BITS, Bits
from duqsweep.spec import FEW_BIT_KERNELS, TrialSpec

# Layers that read the same input may be one product.
_GROUPS = ((r"self_attn\.[qkv]_proj$", "attention"), (r"mlp\.(gate|up)_proj$", "gated"))


def multiplies_few_bits(spec: TrialSpec, bits: Mapping[str, Bits]) -> bool:
    """Whether a trial's quantized layers are to multiply integers or numbers of e4m3."""
    return bool(bits) and spec.quant.kernel in FEW_BIT_KERNELS


def check_launches(spec: TrialSpec, bits: Mapping[str, Bits], launched: Mapping[str, int]) -> None:
    """Raise EvaluationError unless a call made the products of all quantized layers in few bits.

    Args:
        spec: The trial.
        bits: Its quantized layers.
        launched: What `Policy.launches` says of one call. Names of integer products end in `_w8a8`
            or `_w4a8`, those of e4m3 in `_e4m3`: launches of a kernel per product, and products
            that a kernel which makes many counted on the GPU.
    """
    if not multiplies_few_bits(spec, bits):
        return
    if spec.quant.kernel == "fp8":
        _check_number(spec, bits, launched, ("_e4m3",), "e4m3")
        return
    _check_number(spec, bits, launched, ("_w4a8", "_w8a8"), "integer")
    packed = sum(count for name, count in launched.items() if name.endswith("_w4a8"))
    narrow = any(weight_bits <= PACKED_BITS for weight_bits, _ in bits.values())
    if spec.quant.kernel == "w4a8" and narrow and not packed:
        raise EvaluationError(
            f"kernel=w4a8 ran no product of packed weights; counted: {dict(launched)}"
        )


def _check_number(
    spec: TrialSpec,
    bits: Mapping[str, Bits],
    launched: Mapping[str, int],
    endings: tuple[str, ...],
    kind: str,
) -> None:
    made = sum(count for name, count in launched.items() if name.endswith(endings))
    needed = products_needed(bits, spec.policy.num_steps)
    if made < needed:
        raise EvaluationError(
            f"kernel={spec.quant.kernel} did not run for all layers: {made} {kind} products were "
            f"made in a call, and {len(bits)} quantized layers need at least {needed}; counted: "
            f"{dict(launched)}"
        )


def products_needed(bits: Mapping[str, Bits], num_steps: int) -> int:
    """The fewest products in few bits that a call can do with, merged as far as possible.

    Only keys and values of the language model's last layer are read; the expert runs once a step.
    """
    last = max((_number(name) for name in bits if name.startswith(LLM)), default=0)
    groups = set()
    for name in bits:
        reads_only_cache = name.startswith(LLM) and _number(name) == last
        if not reads_only_cache or re.search(r"[kv]_proj$", name):
            groups.add(_merged_name(name))
    return sum(num_steps if group.startswith(EXPERT) else 1 for group in groups)


def _merged_name(name: str) -> str:
    for pattern, group in _GROUPS:
        name = re.sub(pattern, group, name)
    return name


def _number(name: str) -> int:
    found = re.search(r"\.layers\.(\d+)\.", name)
    return int(found[1]) if found else -1
