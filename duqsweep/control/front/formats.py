"""How the numbers of a sweep are written, the same in every place that shows them."""

from __future__ import annotations

from typing import Any

NONE = "–"


def percent(rate: float | None) -> str:
    """`0.925` as `92.5 %`."""
    return NONE if rate is None else f"{100 * rate:.1f} %"


def seconds(time_s: float | None) -> str:
    """A time with three significant digits and its unit."""
    if time_s is None:
        return NONE
    return f"{time_s:,.0f} s" if time_s >= 100 else f"{time_s:.3g} s"


def milliseconds(time_ms: float | None) -> str:
    """A call's time with three significant digits and its unit."""
    if time_ms is None:
        return NONE
    return f"{time_ms:,.0f} ms" if time_ms >= 1000 else f"{time_ms:.3g} ms"


def duration(time_s: float) -> str:
    """A waiting time, e.g. `45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(time_s)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def ratio(value: float | None) -> str:
    """A speed-up, e.g. `1.85×`."""
    if value is None:
        return NONE
    return f"{value:.2f}×" if value < 10 else f"{value:,.0f}×"


def number(value: Any, digits: int = 3) -> str:
    """Any value in a table cell."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def probability(value: float | None) -> str:
    """A probability with two digits."""
    return NONE if value is None else f"{value:.2f}"
