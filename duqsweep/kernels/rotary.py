"""Rotary positions on rows of several heads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Table = tuple[Tensor, Tensor]  # cosines and sines, each (tokens, head_dim / 2) in float32


@dataclass(frozen=True)
class Rotary:
    """Which channels are rotated; channel i of a head's first half pairs with i of its second half.

    With rows of a weight reordered by `interleaved`, the two outputs of a pair are adjacent.
    """

    head_dim: int
    heads: int  # the first `heads` heads are rotated, the others are not

    def apply(self, rows: Tensor, table: Table) -> Tensor:
        """(tokens, heads * head_dim) → the same shape; computed in float32."""
        cos, sin = (part[:, None] for part in table)
        split = rows.view(len(rows), -1, self.head_dim)
        first, second = split[:, : self.heads].chunk(2, dim=-1)
        rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
        return torch.cat((rotated.to(rows.dtype), split[:, self.heads :]), dim=1).flatten(1)

    def interleaved(self, outputs: int) -> Tensor:
        """(outputs,): row indices of a weight that make outputs 2i and 2i + 1 a pair."""
        halves = torch.arange(outputs).view(-1, 2, self.head_dim // 2)
        return halves.mT.flatten()
