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
        if not 1 <= self.tokens <= 64:
            raise EvaluationError(f"the expert's kernels take 1 to 64 tokens, got {self.tokens}")
        for name in ("width", "hidden", "head_dim"):
            value = getattr(self, name)
            if value & (value - 1) or value < 32:
                raise EvaluationError(
                    f"the expert's kernels take a {name} that is a power of two >= 32, got {value}"
                )
        mixed = self.heads * self.head_dim
        if mixed & (mixed - 1):
            raise EvaluationError(
                f"the expert's kernels take heads * head_dim that is a power of two, got {mixed}"
            )

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
