"""Keeps the image features of a camera while its picture stays the same to the bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class KeptImages:
    """The features of the latest call's pictures.

    Each picture is encoded on its own, since a product rounds otherwise with more rows beside it:
    so a call gives the same to the bit, whatever was kept.
    """

    def __init__(self, encode: Callable[[NDArray[np.uint8]], Tensor]) -> None:
        """Keep nothing yet; `encode` gives the features of one picture, (height, width, 3)."""
        self._encode = encode
        self._latest: list[tuple[NDArray[np.uint8], Tensor]] = []

    def features(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        """The features of each camera's picture, in the cameras' order."""
        before = [*self._latest, *[None] * (len(pictures) - len(self._latest))]
        self._latest = [
            kept
            if kept is not None and np.array_equal(kept[0], picture)
            else (picture.copy(), self._encode(picture))
            for kept, picture in zip(before, pictures, strict=False)
        ]
        return [features for _, features in self._latest]

    def forget(self) -> None:
        """Encode every picture of the next call."""
        self._latest = []
