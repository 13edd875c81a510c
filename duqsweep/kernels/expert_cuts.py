"""Sizes of an expert, and how its kernels are cut into programs."""

from __future__ import annotations

from dataclasses import dataclass

from duqsweep.errors import EvaluationError

TOKENS = 16  # rows of a tile; the buffers' tokens are a multiple of it


@dataclass(frozen=True)
class Shape:
    """Sizes of an expert and of its action chunk."""

    tokens: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    action_dim: int

    def __post_init__(self) -> None:
        reason = shape_reason(**vars(self))
        if reason is not None:
            raise EvaluationError(reason)

    @property
    def padded(self) -> int:
        """Rows of the buffers."""
        return -(-self.tokens // TOKENS) * TOKENS


def shape_reason(
    *,
    tokens: int,
    width: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    action_dim: int,
) -> str | None:
    """Why there are no kernels for these sizes; None: there are."""
    if not 1 <= tokens <= 64:
        return f"the expert's kernels take 1 to 64 tokens, got {tokens}"
    for name, value in (("width", width), ("hidden", hidden), ("head_dim", head_dim)):
        if value & (value - 1) or value < 32:
            return f"the expert's kernels take a {name} that is a power of two >= 32, got {value}"
    mixed = heads * head_dim
    if mixed & (mixed - 1):
        return f"the expert's kernels take heads * head_dim that is a power of two, got {mixed}"
    return None


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
