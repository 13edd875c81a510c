"""What a quantized policy costs by arithmetic alone: rotations, FLOPs, bytes. Nothing is measured.

Counts linear layers only (attention products and norms are the same in every trial), and needs no
tensor, so that both sides of the wall can use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from duqsweep.errors import ConfigError
from duqsweep.quant.select import Bits, Shape, permutes, rotates_twice, shares_rotation
from duqsweep.spec import FULL_PRECISION, QuantSpec

EXPERT = "gemma_expert"  # part of every action-expert layer's name
SCALE_BYTES = 2  # packed formats store scales in half precision
BF16_BYTES = 2
INT8_BITS = 8
INDEX_BYTES = 4  # one channel number of a permutation


@dataclass(frozen=True)
class Work:
    """How often one part of the policy runs in a policy call."""

    forwards: int  # passes through its layers
    tokens: int  # rows of input in each pass


@dataclass(frozen=True)
class Machine:
    """What a machine does at best, measured."""

    bytes_per_s: float  # read plus written, by a copy
    flops_per_s: float  # bf16 products
    int8_ops_per_s: float  # e4m3 counts as int8: their tensor cores have the same peak


# Large copies and products, torch 2.11: the ceilings of benchmarks/policy_latency.py.
H200 = Machine(bytes_per_s=4.25e12, flops_per_s=7.9e14, int8_ops_per_s=9.4e14)


@dataclass(frozen=True)
class _Layer:
    """What one linear layer costs."""

    rotations: int  # small products with one block, per pass
    flops: float  # per pass
    bytes_read: float  # per pass: weights, scales, rotations
    bytes_stored: float


def modelled(
    layers: Mapping[str, Shape],
    bits: Mapping[str, Bits],
    quant: QuantSpec,
    work: Mapping[str, Work],
    full_bytes: int,
) -> dict[str, float]:
    """Cost of one policy call, for the key `modelled` of a trial's vitals.

    Args:
        layers: Dotted name → (out features, in features) of every linear layer.
        bits: Layers that are quantized, from `select_layers`.
        quant: The settings.
        work: Part of a dotted name → how often those layers run; each layer matches exactly one.
        full_bytes: Bytes of an unquantized number: 4 in fp32, 2 in bf16.

    Returns:
        expert_forwards_per_call; rotations_per_call: blocks multiplied, inputs and outputs;
        flops_per_call: linear layers and rotations; bytes_per_call: weights at their bits, their
        scales and the rotations, read once per pass.

    Raises:
        ConfigError: A layer matches no part of `work`, or several.
    """
    totals = {"rotations_per_call": 0.0, "flops_per_call": 0.0, "bytes_per_call": 0.0}
    for name, shape in layers.items():
        part = _work_of(name, work)
        layer = _layer_cost(shape, bits.get(name), quant, part.tokens, full_bytes)
        totals["rotations_per_call"] += part.forwards * layer.rotations
        totals["flops_per_call"] += part.forwards * layer.flops
        totals["bytes_per_call"] += part.forwards * layer.bytes_read
    expert_forwards = sum(part.forwards for key, part in work.items() if EXPERT in key)
    return {"expert_forwards_per_call": expert_forwards, **totals}


def modelled_seconds(
    layers: Mapping[str, Shape],
    bits: Mapping[str, Bits],
    quant: QuantSpec,
    work: Mapping[str, Work],
    machine: Machine,
) -> float:
    """A policy call's linear layers, if each kept to the machine's limits: what bits could buy.

    Layer by layer the slower of reading the weights, bf16 or at their bits, and of its operations,
    at the rate of int8 where weights and activations have 8 bits or fewer, e4m3 included.

    Args:
        layers: As in `modelled`.
        bits: As in `modelled`.
        quant: The settings.
        work: As in `modelled`.
        machine: Its ceilings.
    """
    total = 0.0
    for name, shape in layers.items():
        part, pair = _work_of(name, work), bits.get(name)
        layer = _layer_cost(shape, pair, quant, part.tokens, BF16_BYTES)
        integer = pair is not None and max(pair) <= INT8_BITS
        rate = machine.int8_ops_per_s if integer else machine.flops_per_s
        total += part.forwards * max(layer.bytes_read / machine.bytes_per_s, layer.flops / rate)
    return total


def weights_mb(
    layers: Mapping[str, Shape],
    bits: Mapping[str, Bits],
    quant: QuantSpec,
    parameters: int,
    full_bytes: int,
) -> float:
    """Size of the packed policy in megabytes (10⁶ bytes).

    Args:
        layers: As in `modelled`.
        bits: As in `modelled`.
        quant: The settings.
        parameters: Numbers in the whole unquantized policy, embeddings and norms included.
        full_bytes: Bytes of each number that stays as it is.
    """
    stored = float(parameters * full_bytes)
    for name, pair in bits.items():
        rows, columns = layers[name]
        stored -= rows * columns * full_bytes
        stored += _layer_cost((rows, columns), pair, quant, 1, full_bytes).bytes_stored
    return stored / 1e6


def mean_weight_bits(layers: Mapping[str, Shape], bits: Mapping[str, Bits]) -> float:
    """Weight bits averaged over the numbers of the quantized layers; 16 where there is none."""
    if not bits:
        return float(FULL_PRECISION)
    sizes = {name: layers[name][0] * layers[name][1] for name in bits}
    return sum(bits[name][0] * size for name, size in sizes.items()) / sum(sizes.values())


def _work_of(name: str, work: Mapping[str, Work]) -> Work:
    found = [key for key in work if key in name]
    if len(found) != 1:
        raise ConfigError(f"layer {name!r} must match one of {sorted(work)}, matches {found}")
    return work[found[0]]


def _layer_cost(
    shape: Shape, bits: Bits | None, quant: QuantSpec, tokens: int, full_bytes: int
) -> _Layer:
    rows, columns = shape
    flops = 2.0 * tokens * rows * columns
    if bits is None:
        weights = float(rows * columns * full_bytes)
        return _Layer(0, flops, weights, weights)
    weights = _weight_bytes(shape, bits[0], quant.weight_group_size, full_bytes)
    if permutes(quant):
        weights += columns * INDEX_BYTES
    if quant.smoothing > 0:
        weights += columns * SCALE_BYTES
    if quant.act_scale == "static" and bits[1] < FULL_PRECISION:
        weights += columns * SCALE_BYTES
    rotations = 0
    if quant.rotation != "none":
        block = quant.block_size
        rotated = [columns] * (2 if rotates_twice(quant) else 1)
        if quant.row_rotation:
            rotated.append(rows)
        for width in rotated:
            rotations += width // block
            flops += 2.0 * tokens * width * block
            matrices = 1 if shares_rotation(quant) else width // block
            weights += matrices * block * block * full_bytes
    return _Layer(rotations, flops, weights, weights)


def _weight_bytes(shape: Shape, weight_bits: int, group: int, full_bytes: int) -> float:
    rows, columns = shape
    if weight_bits == FULL_PRECISION:
        return float(rows * columns * full_bytes)
    scales = rows * (columns // group if group else 1)
    return rows * columns * weight_bits / 8 + scales * SCALE_BYTES
