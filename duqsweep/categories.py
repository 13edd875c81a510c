"""Success by category: some suites have each task in several forms, e.g. with other objects."""

from __future__ import annotations

from collections.abc import Iterable

from duqsweep.result import EpisodeRecord, SuccessCounts
from duqsweep.spec import SuiteSpec

SUCCESS_RATE = "success_rate"  # the objective; of one category: "success_rate.object"


def counts_by_category(
    records: Iterable[EpisodeRecord], suite: SuiteSpec
) -> dict[str, SuccessCounts]:
    """Category → its episodes, in the suite's order; empty where the suite has no categories.

    Args:
        records: One per ledger entry.
        suite: Says which category a task belongs to.
    """
    records = list(records)
    return {
        name: SuccessCounts.of(r for r in records if suite.category(r.task) == name)
        for name in suite.categories
    }


def of_category(measure: str, category: str) -> str:
    """The name of a measure of one category, e.g. `success_rate.object`."""
    return f"{measure}.{category}"


def is_success_rate(name: str) -> bool:
    """Whether a measure is a success rate, of all episodes or of a category's."""
    return name.partition(".")[0] == SUCCESS_RATE


def named_category(name: str) -> str | None:
    """The category in `success_rate.CATEGORY`; None for every other measure."""
    measure, dot, category = name.partition(".")
    return category if dot and measure == SUCCESS_RATE else None
