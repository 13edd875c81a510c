"""benchmarks/graded_progress.py: its savings against information by hand; how it counts goals."""

from __future__ import annotations

import math

import graded_progress
import pytest
from scipy.special import ndtr, ndtri


def test_what_is_saved_is_what_the_information_says() -> None:
    rate, level = 0.7, graded_progress._level()
    skill = ndtri(rate)
    chances = [ndtr(skill), ndtr(-skill) - ndtr(-skill - level)]
    chances.append(ndtr(-skill - level))
    inner, outer = (math.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) for x in (skill, skill + level))
    slopes = (inner, outer - inner, -outer)
    graded = sum(slope**2 / chance for slope, chance in zip(slopes, chances, strict=True))
    binary = inner**2 / (rate * (1 - rate))
    found = graded_progress.saved(rate, 3000)
    assert found["two_predicates"] == pytest.approx(1 - binary / graded, abs=0.03)


def test_goals_are_counted_without_the_word_that_joins_them() -> None:
    text = "(:init (On a b))\n(:goal (And (On a b) (In c d)))\n)"
    assert graded_progress._goals(text) == ["On", "In"]
