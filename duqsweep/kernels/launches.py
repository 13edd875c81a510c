"""Counts kernel launches by name; every function that launches a kernel calls `note`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

_counting: list[Counter[str]] = []


def note(name: str, times: int = 1) -> None:
    """Add `times` launches of a kernel to the counts of every open `counted` block."""
    for counts in _counting:
        counts[name] += times


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the launches within the block by kernel; a replay of a CUDA graph counts nothing."""
    counts: Counter[str] = Counter()
    _counting.append(counts)
    try:
        yield counts
    finally:
        _counting.remove(counts)
