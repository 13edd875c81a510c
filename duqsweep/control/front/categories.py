"""Success by category: what a trial's point says of it, and which episodes count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from duqsweep.categories import counts_by_category
from duqsweep.control.front.intervals import wilson
from duqsweep.control.trials.reader import TrialView


def category_results(view: TrialView) -> dict[str, dict[str, Any]]:
    """Success by category, with Wilson's interval; empty where the suite has no categories."""
    found = {}
    counted = counts_by_category(view.episodes, view.trial.spec.protocol)
    for category, counts in counted.items():
        low, high = wilson(counts.successes, counts.ran) if counts.ran else (None, None)
        found[category] = {
            "episodes": counts.episodes,
            "successes": counts.successes,
            "errors": counts.errors,
            "success_rate": counts.success_rate,
            "success_low": low,
            "success_high": high,
        }
    return found


def category_positions(views: Sequence[TrialView], category: str | None) -> set[int] | None:
    """Ledger positions of a category's episodes; None stands for all."""
    if category is None:
        return None
    return {
        e.i
        for view in views
        for e in view.episodes
        if view.trial.spec.protocol.category(e.task) == category
    }
