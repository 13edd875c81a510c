"""Rotary positions on rows that hold several heads side by side."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Table = tuple[Tensor, Tensor]  # cosines and sines, each (tokens, head_dim / 2) in float32


@dataclass(frozen=True)
class Rotary:
    """Which channels are rotated; a head's first half pairs up with its second, channel by channel.

    `interleaved` rows of a weight bring the two channels of a pair side by side.
    """

    head_dim: int
    heads: int  # the first so many are rotated, the others stay

    def apply(self, rows: Tensor, table: Table) -> Tensor:
        """(tokens, heads * head_dim) → the same; computed in float32."""
        cos, sin = (part[:, None] for part in table)
        split = rows.view(len(rows), -1, self.head_dim)
        first, second = split[:, : self.heads].chunk(2, dim=-1)
        rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
        return torch.cat((rotated.to(rows.dtype), split[:, self.heads :]), dim=1).flatten(1)

    def interleaved(self, outputs: int) -> Tensor:
        """(outputs,) indices of the rows of a weight, so that outputs 2i and 2i + 1 are a pair."""
        halves = torch.arange(outputs).view(-1, 2, self.head_dim // 2)
        return halves.mT.flatten()
