"""The expected gain in hypervolume of a few more episodes, in closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Floats = NDArray[np.float64]

MAX_CELLS = 4096  # of the staircase; with several costs its lines are thinned out to that
_ROOT_2PI = float(np.sqrt(2 * np.pi))


class Staircase:
    """The best success rate that is known at most at given costs.

    The space of costs (all minimised) is cut into boxes at the costs of the points. The height of a
    box is the best rate among the points that cost no more than its lowest corner, or the floor.
    """

    def __init__(self, rates: Floats, costs: Floats, corner: Floats, floor: float) -> None:
        """Measure the points.

        Args:
            rates: Success rate of each point (n,).
            costs: Its costs (n, k).
            corner: The worst costs that count (k,).
            floor: The rate below which nothing counts.
        """
        self._lines = [
            _thinned(np.unique(column[column < limit]), len(corner))
            for column, limit in zip(costs.T, corner, strict=True)
        ]
        self._corner, self._floor = corner, floor
        self._rates = rates
        # The first box along each cost that a point reaches.
        firsts = [
            np.searchsorted(lines, column) + 1
            for lines, column in zip(self._lines, costs.T, strict=True)
        ]
        self._reached = [
            tuple(slice(first, None) for first in row) for row in np.stack(firsts, axis=-1).tolist()
        ]
        self._order = np.argsort(rates, kind="stable").tolist()
        self.heights = self._heights()

    def _heights(self, left_out: int | None = None) -> Floats:
        # The first box of each cost lies before all points.
        heights = np.full([len(lines) + 1 for lines in self._lines], self._floor)
        for i in self._order:  # the best rate is written last
            if i != left_out and self._rates[i] > self._floor:
                heights[self._reached[i]] = self._rates[i]
        return heights

    def without(self, index: int) -> Floats:
        """The heights as they would be if one point did not exist."""
        if not (self.heights[self._reached[index]] == self._rates[index]).any():
            return self.heights
        return self._heights(index)

    def volumes(self, costs: Floats) -> Floats:
        """The part of each box's volume that costs at least `costs` (k,) in every objective."""
        volume: Floats = np.array(1.0)
        for lines, limit, cost in zip(self._lines, self._corner, costs, strict=True):
            edges = np.concatenate([[-np.inf], lines, [limit]])
            widths = np.clip(edges[1:] - np.maximum(edges[:-1], cost), 0.0, None)
            volume = np.multiply.outer(volume, widths)
        return volume

    def volume(self) -> float:
        """The hypervolume above the floor that the points cover."""
        lowest = np.array(
            [
                np.append(line, limit)[0]
                for line, limit in zip(self._lines, self._corner, strict=True)
            ]
        )
        return float(((self.heights - self._floor) * self.volumes(lowest)).sum())


def _thinned(lines: Floats, dimensions: int) -> Floats:
    most = max(int(MAX_CELLS ** (1 / dimensions)) - 1, 1)
    if len(lines) <= most:
        return lines
    kept: Floats = lines[np.unique(np.linspace(0, len(lines) - 1, most).round().astype(int))]
    return kept


def gain_of_new(rate: float, sd: float, heights: Floats, volumes: Floats) -> float:
    """Expected improvement: the point is added, at its posterior mean after the episodes.

    Args:
        rate: Its posterior mean now.
        sd: Standard deviation of the posterior mean after the episodes.
        heights: Of the staircase.
        volumes: Of its boxes, as far as the point reaches them.
    """
    z = (rate - heights) / sd
    return float((volumes * sd * (_density(z) + z * ndtr(z))).sum())


def gain_of_known(rate: float, sd: float, heights: Floats, volumes: Floats) -> float:
    """Value of information: the episodes may change which points the front has.

    Args:
        rate: The point's posterior mean now.
        sd: Standard deviation of the posterior mean after the episodes.
        heights: Of the staircase without this point.
        volumes: Of its boxes, as far as the point reaches them.
    """
    z = np.abs(rate - heights) / sd
    return float((volumes * sd * (_density(z) - z * ndtr(-z))).sum())


def _density(z: Floats) -> Floats:
    found: Floats = np.exp(-0.5 * z * z) / _ROOT_2PI
    return found
