"""Counts which kernels really ran: every wrapper that launches one notes its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

_counting: list[Counter[str]] = []


def note(name: str, times: int = 1) -> None:
    """Count so many launches of a kernel in every `counted` block that is open."""
    for counts in _counting:
        counts[name] += times


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Counts the launches in the block by kernel; replays of a CUDA graph launch nothing here."""
    counts: Counter[str] = Counter()
    _counting.append(counts)
    try:
        yield counts
    finally:
        _counting.remove(counts)
