"""Which backend a trial's expert will run on, as far as it can be known without a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby

from duqsweep.checkpoint.sizes import EXPERT, PolicySizes
from duqsweep.kernels.expert.limits import (
    ProductFormat,
    loop_formats_reason,
    loop_sizes_reason,
    shape_reason,
)
from duqsweep.quant.select import PACKED_BITS, Bits, Shape
from duqsweep.spec import FEW_BIT_KERNELS, FULL_PRECISION, QuantSpec, TrialSpec

# Layers that read the same input.
ATTENTION, GATED = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")
PRODUCTS = (ATTENTION, ("o_proj",), GATED, ("down_proj",))


def expert_remark(
    spec: TrialSpec, bits: Mapping[str, Bits], layers: Mapping[str, Shape], sizes: PolicySizes
) -> str | None:
    """What an expert that multiplies few bits will run on; None for other trials.

    Args:
        spec: The trial.
        bits: Its quantized layers.
        layers: All layers of the policy, name → (out features, in features).
        sizes: Of the policy.
    """
    few_bits = spec.quant.kernel in FEW_BIT_KERNELS and any(EXPERT in name for name in bits)
    if not few_bits or not spec.runtime.compile:
        return None
    e4m3 = spec.quant.kernel == "fp8"
    reason = _halves(bits, layers) or shape_reason(_sizes(sizes))
    if reason is not None:
        where = "torch.compile" if e4m3 else "no backend"
        return f"the expert runs on {where}, because {reason}"
    formats = list(_formats(spec.quant, bits, layers))
    reason = loop_formats_reason(formats) or loop_sizes_reason(_sizes(sizes))
    if reason is not None:
        where = "on torch.compile" if e4m3 else "as several kernels per layer"
        return f"the expert runs {where}, because {reason}"
    return "the expert runs as one kernel where the GPU can (Hopper or newer)"


def _groups(layers: Mapping[str, Shape]) -> Iterator[list[str]]:
    """The expert's layers; those that read the same input together."""
    names = [name for name in layers if name.startswith(EXPERT)]
    for _, layer in groupby(names, lambda name: name.split(".layers.")[1].split(".")[0]):
        own = list(layer)
        for product in PRODUCTS:
            yield [name for name in own if name.endswith(product)]


def _halves(bits: Mapping[str, Bits], layers: Mapping[str, Shape]) -> str | None:
    for group in _groups(layers):
        if 0 < sum(name in bits for name in group) < len(group):
            return f"only some of {', '.join(group)} are quantized, and they read the same input"
    return None


def _formats(
    quant: QuantSpec, bits: Mapping[str, Bits], layers: Mapping[str, Shape]
) -> Iterator[ProductFormat]:
    for group in _groups(layers):
        if group[0] not in bits:
            yield ProductFormat("bfloat16")
            continue
        widest = max(bits[name][0] for name in group)
        packed = quant.kernel == "w4a8" and widest <= PACKED_BITS
        width = layers[group[0]][1]
        grouped = quant.weight_group_size and widest < FULL_PRECISION
        yield ProductFormat(
            "e4m3" if quant.kernel == "fp8" else "w4a8" if packed else "w8a8",
            groups=width // quant.weight_group_size if grouped else 1,
            block=1 if quant.rotation == "none" else quant.block_size,
            act_bits=bits[group[0]][1],
        )


def _sizes(sizes: PolicySizes) -> dict[str, int]:
    expert = sizes.expert
    return {
        "tokens": sizes.horizon,
        "width": expert.width,
        "hidden": expert.mlp,
        "heads": expert.heads,
        "kv_heads": expert.kv_heads,
        "head_dim": expert.head_dim,
    }
