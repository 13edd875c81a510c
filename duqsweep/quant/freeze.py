"""Replaces the selected linear layers of a policy by quantized ones, in place."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from duqsweep.errors import EvaluationError
from duqsweep.quant.calibrate import LayerStats, linear_named
from duqsweep.quant.fold import build_pack
from duqsweep.quant.linear import LinearParts
from duqsweep.quant.linears import BUILDERS
from duqsweep.quant.packs import Pack, expected_tensors, load_or_build, pack_key
from duqsweep.quant.quantizer import largest
from duqsweep.quant.select import Bits, check_layer
from duqsweep.spec import FULL_PRECISION, QuantSpec, numbers_of

log = logging.getLogger(__name__)


def freeze(
    module: nn.Module,
    bits: Mapping[str, Bits],
    quant: QuantSpec,
    stats: Mapping[str, LayerStats],
    pack_dir: Path | None,
    weights_id: str,
) -> None:
    """Quantize every layer in `bits`; other layers are not changed.

    Args:
        module: The policy's module. Layers are replaced in it; their tensors are not written to.
        bits: Layer name → (weight bits, activation bits), from `select_layers`.
        quant: The settings.
        stats: From `calibrate`, with the same `bits` and `quant`.
        pack_dir: Folder of cached packs; None: build all packs and store none.
        weights_id: Identifies the checkpoint in the packs' keys.

    Raises:
        ConfigError: A block or group does not divide a layer's width.
        EvaluationError: A layer or its statistics are missing, a weight holds NaN or infinity,
            or a pack is damaged.
    """
    build = BUILDERS[quant.kernel]
    for name, pair in bits.items():
        linear = linear_named(module, name)
        check_layer(quant, name, (linear.out_features, linear.in_features), pair)
        if name not in stats:
            raise EvaluationError(f"layer {name!r} has no calibration statistics")
        weight = linear.weight.detach()
        if not torch.isfinite(weight).all():
            raise EvaluationError(f"the weight of layer {name!r} holds NaN or infinity")
        pack = _pack(linear.weight, name, pair[0], quant, stats[name], pack_dir, weights_id)
        act_scale = _act_scale(name, pair[1], quant, stats[name])
        parts = LinearParts(
            *pair, pack, act_scale, linear.bias, weight.dtype, weight.device, numbers_of(quant)
        )
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, build(parts))
    log.info("%d layers quantized, kernel %s", len(bits), quant.kernel)


def _pack(
    weight: Tensor,
    name: str,
    weight_bits: int,
    quant: QuantSpec,
    stats: LayerStats,
    pack_dir: Path | None,
    weights_id: str,
) -> Pack:
    seen = stats.act_max, stats.samples
    build = partial(build_pack, weight.detach(), weight_bits, quant, *seen)
    if pack_dir is None:
        return build()
    key = pack_key(weights_id, name, weight, weight_bits, quant, *seen)
    shape = (weight.shape[0], weight.shape[1])
    return load_or_build(pack_dir, key, expected_tensors(shape, weight_bits, quant), build)


def _act_scale(name: str, act_bits: int, quant: QuantSpec, stats: LayerStats) -> Tensor | None:
    if quant.act_scale == "per_token" or act_bits == FULL_PRECISION:
        return None
    if stats.percentile is None:
        raise EvaluationError(f"layer {name!r} was calibrated without the static scales it needs")
    return (stats.percentile / largest(act_bits, numbers_of(quant))).clamp_min(1e-6)
