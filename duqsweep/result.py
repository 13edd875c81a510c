"""What a trial yields: the records that the worker writes and the control side reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from duqsweep.codec import decode, encode
from duqsweep.errors import SpecError

# Keys of `Vitals.modelled`.
PICTURES = "pictures_per_call"
PROMPT_TOKENS = "prompt_tokens_per_call"
H200_SECONDS = "h200_seconds_per_call"

Outcome = Literal["complete", "stopped", "failed"]
ENDINGS: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True)
class LatencyStats:
    """Steady-state latency of one policy call, batch 1, in milliseconds."""

    p50: float
    p95: float
    n: int  # timed calls

    def __post_init__(self) -> None:
        if self.n < 1 or not 0 < self.p50 <= self.p95:
            raise SpecError(f"latency needs n >= 1 and 0 < p50 <= p95, got {self}")


@dataclass(frozen=True)
class SimulatorInfo:
    """What plays a sweep's episodes; trials under different ones cannot be compared."""

    mujoco: str  # versions
    robosuite: str
    libero: str  # of hf-libero
    assets: Literal["original", "stand-ins", "shipped"]  # LIBERO's; not its pictures; our own suite
    assets_id: str  # digest of the content of all files
    asset_files: int = 0  # that the suite loads from LIBERO's assets
    stand_ins: int = 0  # of these, how many are not LIBERO's: pictures and visual meshes only

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return encode(self)

    @classmethod
    def from_json(cls, data: Any) -> SimulatorInfo:
        """Raises SpecError on unknown, missing or impossible values."""
        return decode(cls, data)


@dataclass(frozen=True)
class Vitals:
    """What a trial really is and costs, measured before its first episode."""

    layers_quantized: int
    bits: dict[str, tuple[int, int]]  # quantized layers: weight bits, activation bits
    mean_weight_bits: float  # over the weights of the quantized layers; 16 without any
    # All weights, 10^6 bytes: with kernel int8 or w4a8 those that a call reads, as they lie in
    # memory; otherwise as they would be stored at their bits, by arithmetic.
    weights_mb: float
    # By arithmetic: expert_forwards_, rotations_, flops_ and bytes_per_call, and H200_SECONDS that
    # an H200 could reach at these bits; for a call that reads so many PICTURES and PROMPT_TOKENS.
    modelled: dict[str, float]
    call_ms: LatencyStats
    parts_ms: dict[str, float]  # medians of vision, llm, dit
    reference_call_ms: float  # unquantized, eager, on the same node, interleaved; median
    speedup: float  # reference_call_ms / call_ms.p50
    compile_s: float  # of the first calls beyond warm ones; without what was compiled before them
    action_error: float  # normalised action RMSE to the unquantized policy, same noise
    kernel: str  # the kernel that ran: fake, loop, int8, w4a8, none
    hardware: dict[str, Any]
    versions: dict[str, str]
    git: str | None
    launches: dict[str, int] = field(default_factory=dict)  # of our GPU kernels, in one call
    allocated_mb: float | None = None  # by the GPU's allocator, beside the reference; None: no GPU
    simulator: SimulatorInfo | None = None  # None: the suite has no episodes
    renderer: str | None = None  # osmesa or egl, as used
    # Medians of "rotations" (with permutations) and "rounding" of activations, in all layers of one
    # call, so within `parts_ms`. None: they are fused with other work. Empty: nothing is quantized.
    stages_ms: dict[str, float] | None = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return encode(self)

    @classmethod
    def from_json(cls, data: Any) -> Vitals:
        """Raises SpecError on unknown, missing or impossible values."""
        return decode(cls, data)


@dataclass(frozen=True, slots=True)  # a sweep has tens of thousands
class EpisodeRecord:
    """One rollout of one ledger entry. With an `error` it is neither a success nor a failure."""

    i: int
    suite: str
    task: int
    init_state: int
    seed: int
    success: bool
    steps: int  # control steps taken
    calls: int  # policy calls made
    policy_s: float  # time inside the policy
    sim_s: float  # time inside the simulator
    wall_s: float
    error: str | None = None  # type and message of what went wrong
    attempt: int = 0  # 0, or 1 when it is the retry of an error

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return encode(self)

    @classmethod
    def from_json(cls, data: Any) -> EpisodeRecord:
        """Raises SpecError on unknown, missing or impossible values."""
        return decode(cls, data)


@dataclass(frozen=True)
class Throughput:
    """What a worker has played of one trial in some time, with all its simulators."""

    simulators: int
    wall_s: float = 0.0
    episodes: int = 0  # that ended, errors included
    steps: int = 0  # control steps
    calls: int = 0  # of the policy
    policy_s: float = 0.0  # in which the policy computed
    sim_s: float = 0.0  # in which simulators computed, added up

    def after(self, wall_s: float) -> Throughput:
        """The same in another time."""
        return replace(self, wall_s=wall_s)

    def since(self, earlier: Throughput) -> Throughput:
        """What was added to an earlier reading."""
        counts = {
            name: getattr(self, name) - getattr(earlier, name)
            for name in ("wall_s", "episodes", "steps", "calls", "policy_s", "sim_s")
        }
        return Throughput(self.simulators, **counts)

    @property
    def policy_busy(self) -> float:
        """Share of the time in which the policy computed, 0 to 1."""
        return self.policy_s / self.wall_s if self.wall_s else 0.0

    @property
    def simulators_busy(self) -> float:
        """How many simulators computed at a time, on average."""
        return self.sim_s / self.wall_s if self.wall_s else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return encode(self)

    @classmethod
    def from_json(cls, data: Any) -> Throughput:
        """Raises SpecError on unknown, missing or impossible values."""
        return decode(cls, data)

    @property
    def episodes_per_min(self) -> float:
        """Episodes that ended, per minute."""
        return 60 * self.episodes / self.wall_s if self.wall_s else 0.0


@dataclass(frozen=True)
class SuccessCounts:
    """How some episodes ended; an episode with an error is neither a success nor a failure."""

    episodes: int  # successes + failures + errors
    successes: int
    errors: int

    @classmethod
    def of(cls, records: Iterable[EpisodeRecord]) -> SuccessCounts:
        """The counts over `records`, one per ledger entry."""
        ended = [(record.success, record.error is not None) for record in records]
        successes = sum(success for success, failed in ended if not failed)
        return cls(len(ended), successes, sum(failed for _, failed in ended))

    @property
    def ran(self) -> int:
        """Successes and failures."""
        return self.episodes - self.errors

    @property
    def failures(self) -> int:
        """Episodes that ran and did not reach the goal."""
        return self.ran - self.successes

    @property
    def success_rate(self) -> float | None:
        """Successes over successes and failures; None without an episode that ran."""
        return self.successes / self.ran if self.ran else None


def final_attempts(records: list[EpisodeRecord]) -> list[EpisodeRecord]:
    """The last record of each ledger entry, in ledger order."""
    return [record for _, record in sorted({record.i: record for record in records}.items())]


@dataclass(frozen=True)
class TrialResult:
    """The outcome of a trial so far.

    complete: played every assigned episode; stopped: asked to end before that; failed: cannot be
    evaluated, for the reason in `error_type` and `traceback`.
    """

    outcome: Outcome
    reason: str
    episodes: int  # successes + failures + errors
    successes: int
    errors: int
    success_rate: float | None  # successes / (episodes - errors); None without such an episode
    error_type: str | None = None
    traceback: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.successes <= self.episodes - self.errors:
            raise SpecError(f"0 <= successes <= episodes - errors must hold, got {self}")
        if self.outcome == "failed" and not self.error_type:
            raise SpecError("a failed result needs an error_type")
        if self.success_rate is not None and not 0 <= self.success_rate <= 1:
            raise SpecError(f"success_rate must be 0 to 1, got {self.success_rate}")

    @property
    def counts(self) -> SuccessCounts:
        """How its episodes ended."""
        return SuccessCounts(self.episodes, self.successes, self.errors)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return encode(self)

    @classmethod
    def from_json(cls, data: Any) -> TrialResult:
        """Raises SpecError on unknown, missing or impossible values."""
        return decode(cls, data)
