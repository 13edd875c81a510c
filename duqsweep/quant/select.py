"""Resolves rules against a policy's layers: which are quantized, and with how many bits.

Uses names and widths only, without torch, so that the control side can check a sweep before it
starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from duqsweep.errors import ConfigError
from duqsweep.setting import Rule
from duqsweep.spec import (
    BLOCK_SIZES,
    FULL_PRECISION,
    GROUP_SIZES,
    INTEGER_KERNELS,
    LayerBits,
    LayerRule,
    QuantSpec,
    has_blocks,
    mixes_channels,
    numbers_of,
)

Bits = tuple[int, int]  # weight bits, activation bits
INTEGER_BITS = 8  # at most, of weights and activations that a kernel multiplies
E4M3_BITS = 8  # sign, 4 bits of exponent, 3 of fraction
PACKED_BITS = 4  # up to this, kernel w4a8 stores two codes per byte

Shape = tuple[int, int]  # out features, in features


def select_layers(quant: QuantSpec, layers: Mapping[str, Shape]) -> dict[str, Bits]:
    """Bits of every layer that will be quantized, in the order of `layers`.

    The first rule whose regex is found in a layer's name decides its bits. Then `quant.layer_bits`
    replaces the weight bits of layers that a rule quantizes; the last match wins.

    Args:
        quant: The settings; without rules, no layer is selected.
        layers: Dotted name → (out features, in features) of every layer that may be quantized.

    Returns:
        Name → (weight bits, activation bits) of the layers where either is below 16.

    Raises:
        ConfigError: A rule or a layer path matches no layer, a block or group does not divide a
            selected layer's width, or row_rotation is set without a rotation.
    """
    if not quant.rules:
        return {}
    for rule in quant.rules:
        if not any(re.search(rule.include, name) for name in layers):
            raise ConfigError(f"rule {rule.include!r} matches none of {_examples(layers)}")
    for entry in quant.layer_bits:
        if not any(is_under(name, entry.path) for name in layers):
            raise ConfigError(
                f"layer path {entry.path!r} (whole dotted components) reaches none of "
                f"{_examples(layers)}"
            )
    bits = {name: _bits_of(name, quant.rules, quant.layer_bits) for name in layers}
    selected = {name: pair for name, pair in bits.items() if min(pair) < FULL_PRECISION}
    checks = [rule.of(quant) for rule in LAYER_RULES]
    for name, pair in selected.items():
        for check in checks:
            check(name, layers[name], pair)
    return selected


def is_under(name: str, path: str) -> bool:
    """Whether `name` contains `path` as consecutive dotted components.

    `model.layers.1.mlp` is under `layers.1`; `model.layers.11.mlp` is not.
    """
    return f".{path}." in f".{name}."


def permutes(quant: QuantSpec) -> bool:
    """Whether input channels are permuted; if nothing depends on their order, they are not."""
    return quant.permutation != "none" and mixes_channels(quant)


def shares_rotation(quant: QuantSpec) -> bool:
    """Whether all blocks of a layer share one rotation matrix; otherwise each has its own."""
    return quant.rotation in ("hadamard", "greedy")


def rotates_twice(quant: QuantSpec) -> bool:
    """Whether inputs are rotated before and after the permutation."""
    return quant.rotation == "greedy" and permutes(quant)


def check_layer(quant: QuantSpec, name: str, shape: Shape, bits: Bits) -> None:
    """Raise ConfigError unless `name` fits the blocks, the groups and the kernel of `quant`."""
    for rule in LAYER_RULES:
        rule.of(quant)(name, shape, bits)


def _check_bits(quant: QuantSpec, name: str, shape: Shape, bits: Bits) -> None:
    if quant.kernel in INTEGER_KERNELS and max(bits) > INTEGER_BITS:
        raise ConfigError(
            f"kernel={quant.kernel} multiplies integers of 2 to {INTEGER_BITS} bits, and layer "
            f"{name!r} has W{bits[0]}A{bits[1]}; use kernel=fake, or leave the layer at 16/16"
        )
    if quant.kernel == "fp8" and bits != (E4M3_BITS, E4M3_BITS):
        raise ConfigError(
            f"kernel=fp8 multiplies numbers of {E4M3_BITS} bits, and layer {name!r} has "
            f"W{bits[0]}A{bits[1]}; set both to {E4M3_BITS}, or leave the layer at 16/16"
        )
    if numbers_of(quant) == "e4m3" and not {*bits} <= {E4M3_BITS, FULL_PRECISION}:
        raise ConfigError(
            f"number_format=e4m3 has {E4M3_BITS} bits, and layer {name!r} has W{bits[0]}A{bits[1]};"
            f" its bits must be {E4M3_BITS}, or {FULL_PRECISION} for full precision"
        )


def _check_row_rotation(quant: QuantSpec, name: str, shape: Shape, bits: Bits) -> None:
    if quant.row_rotation and quant.rotation in ("none", "greedy"):
        raise ConfigError(
            f"row_rotation=true needs rotation=hadamard or svd, and rotation is {quant.rotation}"
        )


def _check_input_blocks(quant: QuantSpec, name: str, shape: Shape, bits: Bits) -> None:
    if has_blocks(quant) and shape[1] % quant.block_size:
        raise ConfigError(_uneven("block_size", quant.block_size, name, "input", shape[1]))


def _check_output_blocks(quant: QuantSpec, name: str, shape: Shape, bits: Bits) -> None:
    if quant.row_rotation and shape[0] % quant.block_size:
        raise ConfigError(_uneven("block_size", quant.block_size, name, "output", shape[0]))


def _check_groups(quant: QuantSpec, name: str, shape: Shape, bits: Bits) -> None:
    columns, group = shape[1], quant.weight_group_size
    if group and bits[0] < FULL_PRECISION and columns % group:
        raise ConfigError(_uneven("weight_group_size", group, name, "input", columns))
    packed = quant.kernel == "w4a8" and bits[0] <= PACKED_BITS
    if packed and 0 < group < columns and columns // 2 % group:
        raise ConfigError(
            f"kernel=w4a8 packs channel j of layer {name!r} with channel j + {columns // 2}, so "
            f"that weight_group_size {group} must divide half of its input width {columns}"
        )


# What a quantized layer must fulfil; each check gets its name, its shape and its bits.
LAYER_RULES = (
    Rule(("kernel", "number_format"), _check_bits),
    Rule(("row_rotation", "rotation"), _check_row_rotation),
    Rule(("block_size", "rotation", "permutation", "weight_group_size"), _check_input_blocks),
    Rule(("block_size", "row_rotation"), _check_output_blocks),
    Rule(("kernel", "weight_group_size"), _check_groups),
)


def _bits_of(name: str, rules: tuple[LayerRule, ...], layer_bits: tuple[LayerBits, ...]) -> Bits:
    for rule in rules:
        if re.search(rule.include, name):
            break
    else:
        return FULL_PRECISION, FULL_PRECISION
    weight_bits = rule.weight_bits
    if min(weight_bits, rule.act_bits) < FULL_PRECISION:
        for entry in layer_bits:
            if is_under(name, entry.path):
                weight_bits = entry.weight_bits
    return weight_bits, rule.act_bits


def _uneven(knob: str, size: int, name: str, side: str, width: int) -> str:
    sizes = BLOCK_SIZES if knob == "block_size" else GROUP_SIZES[1:]
    fitting = [str(value) for value in sizes if width % value == 0]
    if knob == "weight_group_size":
        fitting.append("0 (one scale per row)")
    choose = f"choose {knob} {' or '.join(fitting)}, or " if fitting else ""
    return (
        f"{knob} {size} does not divide the {side} width {width} of layer {name!r}; "
        f"{choose}keep that layer at 16 bits with a rule"
    )


def _examples(layers: Mapping[str, Shape]) -> str:
    return f"{len(layers)} linear layers, e.g. {list(layers)[:: max(1, len(layers) // 3)][:3]}"
