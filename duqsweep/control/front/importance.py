"""How much of the differences in success a parameter explains: a record of `front.json`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Importance:
    """Share of the variance of the success rate, over the space, that one parameter explains alone.

    The shares of all parameters add up to less than 1 where parameters interact.
    """

    parameter: str  # its key in the space
    share: float  # posterior mean
    low: float  # 90 % of the posterior lie between these
    high: float
