"""When an episode's steps happen: control steps of 50 ms, and a wait for each policy call."""

from __future__ import annotations

from dataclasses import dataclass

CONTROL_STEP_S = 0.05  # LIBERO's robot is controlled at 20 Hz
_TOLERANCE_S = 1e-9  # for sums of floats


@dataclass(frozen=True)
class Timeline:
    """The time of an episode whose robot waits while the policy computes."""

    steps: int
    call_s: float  # seconds per policy call
    replan_steps: int  # actions executed per call

    @property
    def duration_s(self) -> float:
        """Seconds from the first call to the end of the last step."""
        return self.end_of(self.steps)

    def end_of(self, step: int) -> float:
        """Seconds until `step` control steps are done."""
        calls = -(-step // self.replan_steps)
        return calls * self.call_s + step * CONTROL_STEP_S

    def steps_at(self, seconds: float) -> int:
        """Control steps that are done by then."""
        period = self.call_s + self.replan_steps * CONTROL_STEP_S
        chunks = int((seconds + _TOLERANCE_S) // period)
        rest = seconds - chunks * period - self.call_s
        started = max(0, int((rest + _TOLERANCE_S) // CONTROL_STEP_S))
        return min(self.steps, chunks * self.replan_steps + min(started, self.replan_steps))

    def calls_at(self, seconds: float) -> int:
        """Policy calls that have begun by then, at least one."""
        period = self.call_s + self.replan_steps * CONTROL_STEP_S
        begun = int((seconds + _TOLERANCE_S) // period) + 1
        return min(begun, max(1, -(-self.steps // self.replan_steps)))
