"""The cost of one policy call, part by part, by arithmetic: forwards, rotations, FLOPs, bytes.

Nothing here is measured; `quant.cost` says what is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from duqsweep.checkpoint.sizes import EXPERT, LLM, VISION, PolicySizes, linear_layers, rows_a_pass
from duqsweep.errors import ConfigError
from duqsweep.quant.cost import Work, modelled
from duqsweep.quant.select import Bits, Shape, select_layers
from duqsweep.spec import QuantSpec

PARTS = {"vision": VISION, "llm": LLM, "dit": EXPERT}

# LIBERO has two cameras; pi0.5's third image is empty and masked, and is left out.
CAMERAS_SEEN = 2
# Tokens of a prompt: the shipped policy fills up to 11 words and adds 11 state values; LIBERO's
# longest instruction has 22 tokens, and openpi's pi05_libero puts no state into the prompt.
PROMPT_TOKENS = {"embedded": 22, "pi05_libero": 22}
FULL_BYTES = {"embedded": 4, "pi05_libero": 2}  # of an unquantized number: fp32, bf16


@dataclass(frozen=True)
class PartCost:
    """What one part of the policy does in one call, batch 1."""

    part: str
    linears: int
    quantized: int  # of them
    parameters: int  # in all its linears
    forwards: int  # passes through its layers per call
    tokens: int  # rows in each pass
    rotations: int  # blocks multiplied per call, where each block is a product of its own
    flops: float  # per call, rotations included
    full_bytes: float  # of weights per call, nothing quantized
    packed_bytes: float  # of weights per call, each layer at its bits

    @property
    def rotations_per_forward(self) -> int:
        """Blocks multiplied in one pass."""
        return self.rotations // self.forwards


def call_costs(
    policy: str,
    sizes: PolicySizes,
    num_steps: int,
    quant: QuantSpec,
    reads: tuple[int, int] | None = None,
) -> tuple[PartCost, ...]:
    """The cost of one call, part by part, in the order in which they run.

    Args:
        policy: Its name; sets the bytes of a full-precision number and, without `reads`, the length
            of a prompt.
        sizes: Its sizes.
        num_steps: Denoising steps.
        quant: What is quantized, and how.
        reads: Pictures and prompt tokens of a call, as a trial's vitals say; None: LIBERO's.

    Raises:
        ConfigError: A rule matches nothing or a block does not divide a width.
    """
    if policy not in PROMPT_TOKENS:
        raise ConfigError(f"policy must be one of {sorted(PROMPT_TOKENS)}, got {policy!r}")
    layers = linear_layers(sizes)
    bits = select_layers(quant, layers)
    pictures, prompt_tokens = reads or (min(sizes.cameras, CAMERAS_SEEN), PROMPT_TOKENS[policy])
    rows = rows_a_pass(sizes, pictures, prompt_tokens)
    work = {root: Work(num_steps if root == EXPERT else 1, rows[root]) for root in rows}
    return tuple(
        _part(part, _under(layers, root), bits, quant, work[root], FULL_BYTES[policy])
        for part, root in PARTS.items()
    )


def _part(
    part: str,
    layers: Mapping[str, Shape],
    bits: Mapping[str, Bits],
    quant: QuantSpec,
    work: Work,
    full_bytes: int,
) -> PartCost:
    chosen = {name: pair for name, pair in bits.items() if name in layers}
    packed = modelled(layers, chosen, quant, {PARTS[part]: work}, full_bytes)
    full = modelled(layers, {}, quant, {PARTS[part]: work}, full_bytes)
    return PartCost(
        part=part,
        linears=len(layers),
        quantized=len(chosen),
        parameters=sum(rows * columns for rows, columns in layers.values()),
        forwards=work.forwards,
        tokens=work.tokens,
        rotations=round(packed["rotations_per_call"]),
        flops=packed["flops_per_call"],
        full_bytes=full["bytes_per_call"],
        packed_bytes=packed["bytes_per_call"],
    )


def _under(layers: Mapping[str, Shape], root: str) -> dict[str, Shape]:
    return {name: shape for name, shape in layers.items() if name.startswith(f"{root}.")}
