"""The seed document's table of expected speed-ups and losses, beside what a sweep measured."""

from __future__ import annotations

from dataclasses import dataclass

from duqsweep.control.front.formats import NONE, ratio
from duqsweep.control.front.measures import EPISODE_TIME_S, SPEEDUP
from duqsweep.control.front.records import Front, FrontPoint

BASELINE = "seed_current"  # what the document calls 1×: DuQuant on the whole DiT, per-block loop


@dataclass(frozen=True)
class Claim:
    """One row of the document's table ("各方案对比"), for pi0.5 on its author's GPU."""

    plan: str
    what: str
    episode_time: str
    speedup: str  # over the baseline
    loss: str  # of success, in percentage points


CLAIMS = (
    Claim(BASELINE, "DuQuant on the whole DiT, eager", "4 min", "1×", "0"),
    Claim("plan_a", "A: torch.compile", "30–60 s", "20–40×", "0"),
    Claim("plan_b", "B: block 32 + compile", "30–45 s", "25–45×", "0.5–1"),
    Claim("plan_c", "C: only MLP + block 32 + compile", "20–30 s", "40–80×", "1–3"),
    Claim("plan_d", "D: no rotation, no permutation", "1 min", "4×", "3–5"),
    Claim("llm_only", "LLM only", "10 s", "24×", "0"),
)
HEADER = (
    "plan",
    "what it is",
    "claimed time",
    "claimed speed-up",
    "claimed loss",
    "measured time",
    "measured speed-up",
    "measured loss",
)


def compare_claims(front: Front) -> list[tuple[str, ...]]:
    """One row (see `HEADER`) per claim; empty unless the sweep has all of the document's plans.

    Speed-ups are over the baseline, as in the document; the loss is the baseline's success rate
    minus the plan's, in percentage points.
    """
    measured = {
        point.name: point
        for point in front.points
        if point.name and point.outcome != "failed" and point.value(SPEEDUP)
    }
    base = measured.get(BASELINE)
    names = {point.name for point in front.points}
    if base is None or any(claim.plan not in names for claim in CLAIMS):
        return []
    return [_row(claim, measured.get(claim.plan), base) for claim in CLAIMS]


def _row(claim: Claim, point: FrontPoint | None, base: FrontPoint) -> tuple[str, ...]:
    claimed = (claim.plan, claim.what, claim.episode_time, claim.speedup, claim.loss)
    speedup = point.value(SPEEDUP) if point else None
    base_speedup = base.value(SPEEDUP)
    if point is None or not speedup or not base_speedup:
        return (*claimed, NONE, NONE, NONE)
    gain = ratio(speedup / base_speedup)
    return (*claimed, point.text(EPISODE_TIME_S), gain, _loss(point, base))


def _loss(point: FrontPoint, base: FrontPoint) -> str:
    rate, base_rate = point.success.success_rate, base.success.success_rate
    if rate is None or base_rate is None:
        return NONE
    # The wider half of each interval, added in quadrature: enough to see what is noise.
    noise = 100 * (_half_width(point) ** 2 + _half_width(base) ** 2) ** 0.5
    return f"{100 * (base_rate - rate):+.1f} ±{noise:.0f}"


def _half_width(point: FrontPoint) -> float:
    success = point.success
    ends = (success.success_low, success.success_high)
    return max(abs(end - (success.success_rate or 0.0)) for end in ends if end is not None)
