"""One picture of a video: the camera's view, the wrist camera's in its corner, and a caption."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from duqsweep.seams import Observation

WRIST_SHARE = 0.3  # of the picture's side
_LINES = 6  # of the caption
_GAP = 4  # pixels between two pictures
_BACKGROUND, _TEXT = (20, 22, 26), (235, 235, 235)
_SUCCESS, _FAILURE = (90, 200, 120), (240, 100, 90)


def picture(
    observation: Observation, status: str, success: bool | None, about: Sequence[str], side: int
) -> NDArray[np.uint8]:
    """The cameras and a caption below them.

    Args:
        observation: With pictures "agentview" and "wrist".
        status: The caption's first line.
        success: How the episode ended, which colours that line; None: it has not ended.
        about: Lines that follow, as far as there is room.
        side: Width of the result in pixels.

    Returns:
        (height, side, 3); width and height are even, as H.264 needs.
    """
    view = Image.fromarray(observation.images["agentview"]).resize((side, side))
    small = int(side * WRIST_SHARE)
    wrist = Image.fromarray(observation.images["wrist"]).resize((small, small))
    view.paste(wrist, (side - small - _GAP, side - small - _GAP))
    size = max(11, side // 22)
    canvas = Image.new("RGB", (side, side + _caption_height(size)), _BACKGROUND)
    canvas.paste(view, (0, 0))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size)
    colour = _TEXT if success is None else _SUCCESS if success else _FAILURE
    for row, line in enumerate(_fitted([status, *about], side, size)[:_LINES]):
        place = (6, side + 4 + row * _line_height(size))
        draw.text(place, line, fill=_TEXT if row else colour, font=font)
    return np.asarray(canvas)


def beside(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures of one height from left to right, with a gap between them."""
    gap = np.full((len(pictures[0]), _GAP, 3), _BACKGROUND, np.uint8)
    parts = [part for image in pictures for part in (gap, image)]
    return np.concatenate(parts[1:], axis=1)


def _line_height(size: int) -> int:
    return size + size // 3


def _caption_height(size: int) -> int:
    height = _LINES * _line_height(size) + 8
    return height + height % 2


def _fitted(lines: Sequence[str], side: int, size: int) -> list[str]:
    """Lines broken at the picture's width; a character is about half as wide as it is high."""
    columns = max(10, int((side - 12) / (size * 0.53)))
    return [part for line in lines for part in textwrap.wrap(line, columns) or [""]]
