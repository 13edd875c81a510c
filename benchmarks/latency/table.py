"""Rows as text and as JSON, with the ratios that need the whole table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from latency.measure import Measurement

LOOP = "expert_loop"
HEAD = (
    f"{'form':36} {'cameras':>7} {'horizon':>7} {'ms':>9} {'p95 ms':>9} {'calls':>5} "
    f"{'floor ms':>8} {'×floor':>6} {'error':>7} {'weights MB':>10} {'LLM+DiT':>7} {'build s':>7} "
    f"{'×loop':>7} {'×bf16':>6}"
)


@dataclass(frozen=True)
class Row:
    """One form at one shape."""

    form: str
    cameras: int
    horizon: int
    precise: bool  # nothing is quantized
    floor_ms: float
    measured: Measurement

    @property
    def scope(self) -> str:
        """How much of the policy ran."""
        return self.form.partition("_")[0]

    @property
    def shape(self) -> tuple[str, int, int]:
        """What must be equal for two rows to be comparable."""
        return self.scope, self.cameras, self.horizon


@dataclass(frozen=True)
class Ratios:
    """Speed-ups over other rows of the table; None: not comparable, or not measured."""

    to_seed_loop: float | None  # the loop is limited by launches, so its horizon does not matter
    to_fastest_bf16: float | None  # of the same scope, cameras and horizon


def ratios(row: Row, rows: Sequence[Row]) -> Ratios:
    """A row's speed-ups; above 1, the row is faster."""
    loop = min((other.measured.ms for other in rows if other.form == LOOP), default=None)
    same = [other for other in rows if other.shape == row.shape]
    plain = min((other.measured.ms for other in same if other.precise), default=None)
    ms = row.measured.ms
    return Ratios(
        to_seed_loop=loop / ms if loop is not None and row.scope == "expert" else None,
        to_fastest_bf16=None if plain is None else plain / ms,
    )


def line(row: Row, rows: Sequence[Row]) -> str:
    """One row of the table."""
    found, ratio = row.measured, ratios(row, rows)
    held = found.weights_mb
    weights = f"{sum(held.values()):,.0f}" if held else ""
    stacks = f"{held.get('llm', 0.0) + held.get('dit', 0.0):,.0f}" if held else ""
    to_loop = "" if ratio.to_seed_loop is None else f"{ratio.to_seed_loop:,.1f}"
    to_plain = "" if ratio.to_fastest_bf16 is None else f"{ratio.to_fastest_bf16:.2f}"
    return (
        f"{row.form:36} {row.cameras:7} {row.horizon:7} {found.ms:9.3f} {found.p95_ms:9.3f} "
        f"{found.calls:5} {row.floor_ms:8.3f} {found.ms / row.floor_ms:6.1f} {found.error:7.1e} "
        f"{weights:>10} {stacks:>7} {found.build_s:7.1f} {to_loop:>7} {to_plain:>6}"
    )


def document(machine: Mapping[str, object], rows: Sequence[Row]) -> dict[str, object]:
    """The JSON file's content."""
    return {"machine": dict(machine), "rows": [_record(row, rows) for row in rows]}


def _record(row: Row, rows: Sequence[Row]) -> dict[str, object]:
    ratio = ratios(row, rows)
    measured = asdict(row.measured)
    parts = measured.pop("weights_mb")
    return {
        "form": row.form,
        "cameras": row.cameras,
        "horizon": row.horizon,
        **measured,
        "floor_ms": row.floor_ms,
        "weights_mb": sum(parts.values()) if parts else None,
        "weights_mb_parts": parts,
        "ratio_to_seed_loop": ratio.to_seed_loop,
        "ratio_to_fastest_bf16": ratio.to_fastest_bf16,
    }
