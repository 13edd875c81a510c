"""Sizes of an expert, and how its kernels are cut into programs."""

from __future__ import annotations

from dataclasses import dataclass

from duqsweep.errors import EvaluationError
from duqsweep.kernels.expert.limits import TOKENS, shape_reason


@dataclass(frozen=True)
class ExpertShape:
    """Sizes of an expert and of its action chunk."""

    tokens: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    action_dim: int

    def __post_init__(self) -> None:
        reason = shape_reason(vars(self))
        if reason is not None:
            raise EvaluationError(reason)

    @property
    def padded(self) -> int:
        """Rows of the buffers."""
        return -(-self.tokens // TOKENS) * TOKENS


@dataclass(frozen=True)
class Cut:
    """How a product is cut: output channels a program, spans of input channels, warps."""

    columns: int
    batches: int
    warps: int
    flat: bool = False  # rows are loaded whole and then cut into spans


@dataclass(frozen=True)
class AttentionCut:
    """How attention is cut: rows and keys and channels a program, warps."""

    rows: int = 16
    keys: int = 64
    channels: int = 128
    warps: int = 8


@dataclass(frozen=True)
class Cuts:
    """All of a layer's kernels, for one format of the weights."""

    qkv: Cut
    gate_up: Cut
    o: Cut
    down: Cut
    attention: AttentionCut = AttentionCut()


CUTS = {
    16: Cuts(Cut(8, 4, 4), Cut(16, 8, 4), Cut(8, 8, 4, True), Cut(8, 16, 8, True)),
    8: Cuts(Cut(8, 4, 2), Cut(32, 1, 4), Cut(8, 8, 4, True), Cut(8, 8, 4, True)),
    4: Cuts(Cut(8, 4, 2), Cut(32, 2, 4), Cut(16, 8, 4), Cut(8, 8, 4)),
}
