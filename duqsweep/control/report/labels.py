"""Where labels go in a picture, so that none covers another or a mark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Box(NamedTuple):
    """An axis-parallel rectangle, in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two share some area."""
        return (
            self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1
        )

    def inside(self, other: Box) -> bool:
        """Whether `other` contains this box."""
        return (
            other.x0 <= self.x0
            and self.x1 <= other.x1
            and other.y0 <= self.y0
            and self.y1 <= other.y1
        )


class Placed(NamedTuple):
    """Where a label goes, and in which of its forms."""

    form: int
    box: Box


def place_labels(
    anchors: Sequence[tuple[float, float]],
    sizes: Sequence[Sequence[tuple[float, float]]],
    marks: Sequence[tuple[float, float]],
    gap: float,
    area: Box,
    lines: Sequence[Box] = (),
) -> list[Placed | None]:
    """A free box for each label, tried on eight sides of its anchor at two distances.

    Args:
        anchors: The point that each label names; earlier labels choose first.
        sizes: Width and height of each form of each label, the best form first.
        marks: Every point that must stay visible.
        gap: Distance from anchor to label, and half the side of a mark.
        area: No label leaves it.
        lines: What a label covers only where no other side is free.

    Returns:
        One place per label; None where no form finds a free side.
    """
    half = gap * 0.7
    taken = [Box(x - half, y - half, x + half, y + half) for x, y in marks]
    places: list[Placed | None] = []
    for anchor, forms in zip(anchors, sizes, strict=True):
        found = (_free(anchor, size, gap, area, taken, lines) for size in forms)
        place = next((Placed(i, box) for i, box in enumerate(found) if box is not None), None)
        places.append(place)
        if place is not None:
            taken.append(place.box)
    return places


def _free(
    anchor: tuple[float, float],
    size: tuple[float, float],
    gap: float,
    area: Box,
    taken: Sequence[Box],
    lines: Sequence[Box],
) -> Box | None:
    candidates = _around(anchor, size, gap) + _around(anchor, size, 2 * gap)
    free = [
        box
        for box in candidates
        if box.inside(area) and not any(box.overlaps(other) for other in taken)
    ]
    clear = [box for box in free if not any(box.overlaps(line) for line in lines)]
    return next(iter(clear or free), None)


def _around(anchor: tuple[float, float], size: tuple[float, float], gap: float) -> list[Box]:
    (x, y), (width, height) = anchor, size
    lefts = (x + gap, x - gap - width, x - width / 2)
    bottoms = (y + gap, y - gap - height, y - height / 2)
    right, left, middle = lefts
    above, below, level = bottoms
    corners = [
        (left, above),
        (right, below),
        (right, above),
        (left, below),
        (middle, above),
        (middle, below),
        (right, level),
        (left, level),
    ]
    return [Box(x0, y0, x0 + width, y0 + height) for x0, y0 in corners]
