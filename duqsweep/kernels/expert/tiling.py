"""Sizes of an expert, and how its Triton kernels are divided into programs."""

from __future__ import annotations

from dataclasses import dataclass

from duqsweep.errors import EvaluationError
from duqsweep.kernels.expert.limits import TOKENS, shape_reason


@dataclass(frozen=True)
class ExpertShape:
    """Sizes of an expert and of its action chunk.

    Raises:
        EvaluationError: There is a `shape_reason`.
    """

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
        """Rows of the buffers: tokens, rounded up to whole tiles."""
        return -(-self.tokens // TOKENS) * TOKENS


@dataclass(frozen=True)
class TileConfig:
    """How a product is divided."""

    columns: int  # output channels per program
    batches: int  # spans of input channels, which are multiplied separately and then summed
    warps: int  # per program
    flat: bool = False  # load whole rows and then split them into spans


@dataclass(frozen=True)
class AttentionTileConfig:
    """How attention is divided; all counts are per program."""

    rows: int = 16  # (token, head) pairs
    keys: int = 64
    channels: int = 128  # of the values
    warps: int = 8


@dataclass(frozen=True)
class LayerTileConfigs:
    """Of all kernels of a layer, for one format of the weights."""

    qkv: TileConfig
    gate_up: TileConfig
    o: TileConfig
    down: TileConfig
    attention: AttentionTileConfig = AttentionTileConfig()


# By bits of the weights: the fastest ones for pi0.5's expert on an H200.
TILE_CONFIGS = {
    16: LayerTileConfigs(
        TileConfig(8, 4, 4),
        TileConfig(16, 8, 4),
        TileConfig(8, 8, 4, True),
        TileConfig(8, 16, 8, True),
    ),
    8: LayerTileConfigs(
        TileConfig(8, 4, 2),
        TileConfig(32, 1, 4),
        TileConfig(8, 8, 4, True),
        TileConfig(8, 8, 4, True),
    ),
    4: LayerTileConfigs(
        TileConfig(8, 4, 2), TileConfig(32, 2, 4), TileConfig(16, 8, 4), TileConfig(8, 8, 4)
    ),
}
