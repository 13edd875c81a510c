"""The arithmetic of the document that duqsweep grew out of, from its own assumptions.

The document ("Why is LLM faster than DiT?", 2025-10) explains why an episode took four minutes with
a quantized action expert. Its numbers are reproduced here as it counted them; `mistakes` sets them
against what happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from duqsweep.control.explain.cost import PartCost
from duqsweep.spec import LayerRule, QuantSpec

# What the document's scripts set: the prototype's rotations, restored outputs, one static scale a
# channel, 4-bit weights and 8-bit activations on every linear layer of both stacks.
PROTOTYPE = QuantSpec(
    rules=(LayerRule(include=r"language_model|gemma_expert", weight_bits=4, act_bits=8),),
    rotation="svd",
    block_size=16,
    permutation="prototype",
    row_rotation=True,
    act_scale="static",
)
MEASURED_CALL_S = 13.086  # the one measurement behind the document: a call on an A40-class GPU,
MEASURED_EPISODE_S = 243.0  # and an episode; its 500 ms for FP16 were an estimate


@dataclass(frozen=True)
class Document:
    """The document's assumptions; each property is one of its results."""

    block: int = 16
    depth: int = 18
    sides: int = 2  # "in+out"
    llm_width: int = 2048
    dit_width: int = 1024
    dit_forwards: int = 30  # "estimated"
    calls: int = 18  # per episode
    vision_ms: int = 500  # once per episode
    llm_ms: int = 500  # once per episode
    dit_ms: int = 13_000  # per call, quantized
    dit_fp16_ms: int = 500  # per call

    @property
    def llm_rotations(self) -> int:
        """Rotations in one forward of the LLM: one width per layer, not one per linear layer."""
        return self.llm_width // self.block * self.depth * self.sides

    @property
    def dit_rotations(self) -> int:
        """Rotations in one forward of the DiT."""
        return self.dit_width // self.block * self.depth * self.sides

    @property
    def dit_rotations_per_call(self) -> int:
        """Rotations of the DiT in one policy call."""
        return self.dit_rotations * self.dit_forwards

    @property
    def episode_s(self) -> float:
        """Seconds per episode with the DiT quantized."""
        return self._episode_s(self.dit_ms)

    @property
    def llm_only_episode_s(self) -> float:
        """Seconds per episode with only the LLM quantized."""
        return self._episode_s(self.dit_fp16_ms)

    @property
    def episode_s_all_parts_each_call(self) -> float:
        """Seconds per episode by its own times, where image encoder and LLM run at every call."""
        return self.calls * (self.vision_ms + self.llm_ms + self.dit_ms) / 1e3

    def _episode_s(self, dit_ms: int) -> float:
        return (self.vision_ms + self.llm_ms + self.calls * dit_ms) / 1e3


def comparison(document: Document, costs: Sequence[PartCost]) -> list[tuple[str, str, str]]:
    """(quantity, as the document counted, what happens) for the costs of pi0.5 as it was run."""
    _, llm, dit = costs
    both_calls = document.calls
    return [
        ("rotations, one LLM forward", f"{document.llm_rotations:,}", f"{llm.rotations:,}"),
        (
            "rotations, one DiT forward",
            f"{document.dit_rotations:,}",
            f"{dit.rotations_per_forward:,}",
        ),
        ("DiT forwards per call", f"{document.dit_forwards}", f"{dit.forwards}"),
        (
            "DiT rotations per call",
            f"{document.dit_rotations_per_call:,}",
            f"{dit.rotations:,}",
        ),
        ("vision and LLM forwards per episode", "1", f"{both_calls} (one per call)"),
        (
            "seconds per episode",
            f"{document.episode_s:.0f}",
            f"{document.episode_s_all_parts_each_call:.0f} by its own times, "
            f"{MEASURED_EPISODE_S:.0f} in its log",
        ),
        (
            "seconds per episode, LLM only",
            f"{document.llm_only_episode_s:.0f}",
            "not measured: FP16 was estimated at 0.5 s per call",
        ),
        (
            "DiT compute over LLM compute",
            "1.5 to 7",
            f"{dit.flops / llm.flops:.2f}",
        ),
    ]


def mistakes(document: Document, costs: Sequence[PartCost]) -> list[str]:
    """Where the document is wrong, a sentence or two each."""
    _, llm, dit = costs
    return [
        f"It counts {document.dit_forwards} DiT forwards per call (elsewhere 50); pi0.5 takes "
        f"{dit.forwards} Euler steps by default. It suggests a ddim scheduler: there is none, the "
        "flow is followed by Euler steps only.",
        f"Image encoder and LLM run at every policy call, not once per episode: their cache serves "
        f"the {dit.forwards} denoising steps of one call.",
        f"pi05_libero makes {dit.tokens} actions per call in one pass, not 50 one after the other.",
        "It takes one width per layer. Each of the seven linears has blocks of its own, of its "
        f"own input and output width: {dit.rotations_per_forward:,} rotations per DiT forward, not "
        f"{document.dit_rotations:,}.",
        f"Compute is tokens times parameters. The LLM reads {llm.tokens} tokens, the DiT "
        f"{dit.tokens}: in one call the LLM does {llm.flops / dit.flops:.0f} times the DiT's "
        "arithmetic, although it runs once.",
        "The time goes into launching a product and two copies for every block, not into the "
        "rotations' arithmetic. All blocks fit one batched product: on an H200 that alone took the "
        "expert from 7,790 to 327 ms per call, and a compiled graph to 28.",
        f"The only measurement is one call at {MEASURED_CALL_S * 1e3:,.0f} ms; FP16 at 500 ms was "
        "a guess, so every quoted speed-up divides a measurement by a guess.",
        "A larger block is said to cost accuracy. In DuQuant a larger block spreads outliers "
        "further and is the more accurate one (the paper uses 128).",
        "Mixed precision was never tried: `layers.0:8` was looked up as a layer's whole name and "
        "matched nothing, silently. The smoothing strength changed nothing either.",
        "Fake quantization rounds and multiplies in full precision: fewer bits take no less time "
        "there. The bytes above are what real kernels would read.",
    ]
