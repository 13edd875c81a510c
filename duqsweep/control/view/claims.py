"""The seed document's table of expected speed-ups and losses, beside what a sweep measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from duqsweep.control.view.wording import NONE, ratio, seconds

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


def compare_claims(content: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row (see `HEADER`) a claim; empty unless the baseline and one more plan were measured.

    Speed-ups are over the baseline, as in the document; the loss is the baseline's success rate
    minus the plan's, in percentage points.
    """
    measured = {
        point["name"]: point
        for point in content["points"]
        if point["name"] and point["outcome"] != "failed" and point["speedup"]
    }
    base = measured.get(BASELINE)
    if base is None or not any(claim.plan in measured for claim in CLAIMS[1:]):
        return []
    return [_row(claim, measured.get(claim.plan), base) for claim in CLAIMS]


def _row(claim: Claim, point: Mapping[str, Any] | None, base: Mapping[str, Any]) -> tuple[str, ...]:
    claimed = (claim.plan, claim.what, claim.episode_time, claim.speedup, claim.loss)
    if point is None:
        return (*claimed, NONE, NONE, NONE)
    gain = ratio(point["speedup"] / base["speedup"])
    return (*claimed, seconds(point["episode_time_s"]), gain, _loss(point, base))


def _loss(point: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    if point["success_rate"] is None or base["success_rate"] is None:
        return NONE
    loss = 100 * (base["success_rate"] - point["success_rate"])
    # The wider half of each interval, added in quadrature: enough to see what is noise.
    halves = [
        max(p["success_high"] - p["success_rate"], p["success_rate"] - p["success_low"])
        for p in (point, base)
    ]
    noise = 100 * (halves[0] ** 2 + halves[1] ** 2) ** 0.5
    return f"{loss:+.1f} ±{noise:.0f}"
