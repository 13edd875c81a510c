"""What defines a trial: the records that the control side writes and the worker reads.

Every record is frozen and checked when it is made, so an impossible one cannot exist. Nothing here
knows Hydra, Optuna, torch or LIBERO.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from duqsweep.codec import decode, encode
from duqsweep.errors import SpecError

FULL_PRECISION = 16
BITS_ALLOWED = (2, 3, 4, 5, 6, 7, 8, FULL_PRECISION)
BLOCK_SIZES = (16, 32, 64, 128)
GROUP_SIZES = (0, 32, 64, 128)  # 0: a whole row
# Kernels that multiply integers, and what they cannot do: the inputs' scales must be known before
# the product and the same along its sum, and one order and one rotation serve all of a layer.
INTEGER_KERNELS = ("int8", "w4a8")
_INTEGER_METHODS: dict[str, tuple[object, ...]] = {
    "rotation": ("hadamard", "none"),
    "row_rotation": (False,),
    "act_scale": ("per_token",),
    "smoothing": (0.0,),
}
INTEGER_NEEDS = "needs a CUDA GPU (compute capability 8.0 or higher) and triton"
_INTEGER_BITS = 8  # at most, of weights and activations

Rotation = Literal["hadamard", "svd", "greedy", "none"]
Permutation = Literal["zigzag", "prototype", "none"]
WeightScale = Literal["mse", "absmax"]
ActScale = Literal["per_token", "static"]
Kernel = Literal["fake", "loop", "int8", "w4a8"]
Device = Literal["auto", "cpu", "cuda"]


def check_bits(bits: int, what: str) -> None:
    """Raise SpecError unless `bits` is 2 to 8, or 16 for full precision."""
    if bits not in BITS_ALLOWED:
        raise SpecError(f"{what} must be 2 to 8, or 16 for full precision, got {bits}")


def _check_positive(value: float, what: str) -> None:
    if not value > 0:
        raise SpecError(f"{what} must be positive, got {value}")


@dataclass(frozen=True)
class LayerRule:
    """Bits for every linear layer whose full dotted name contains a match of `include`.

    Rules are tried in order and the first match wins.
    """

    include: str  # regex, re.search against the dotted name
    weight_bits: int  # 2 to 8, or 16
    act_bits: int  # 2 to 8, or 16

    def __post_init__(self) -> None:
        check_bits(self.weight_bits, f"weight_bits of rule {self.include!r}")
        check_bits(self.act_bits, f"act_bits of rule {self.include!r}")
        try:
            re.compile(self.include)
        except re.error as error:
            raise SpecError(
                f"include {self.include!r} is not a regular expression: {error}"
            ) from error


@dataclass(frozen=True)
class LayerBits:
    """Other weight bits for the layers under `path`, which is matched by whole components.

    `layers.1` reaches `...gemma_expert.model.layers.1.mlp.up_proj` and not `...layers.11...`; only
    layers that some rule already quantizes change. The last match wins.
    """

    path: str  # one or more dotted components, e.g. "gemma_expert.model.layers.0"
    weight_bits: int

    def __post_init__(self) -> None:
        check_bits(self.weight_bits, f"weight_bits of layers {self.path!r}")
        if not self.path or self.path.startswith(".") or self.path.endswith("."):
            raise SpecError(
                f"a layer path is dotted components, e.g. 'layers.0', got {self.path!r}"
            )


@dataclass(frozen=True)
class QuantSpec:
    """How the selected layers are quantized (DESIGN: select, calibrate, freeze)."""

    rules: tuple[LayerRule, ...] = ()  # empty: the policy stays as it is
    layer_bits: tuple[LayerBits, ...] = ()
    rotation: Rotation = "hadamard"
    block_size: int = 16  # channels that one rotation mixes; divides the layer's input width
    permutation: Permutation = "zigzag"
    row_rotation: bool = False  # also rotate the outputs, and back
    weight_scale: WeightScale = "mse"
    weight_group_size: int = 0  # input channels that share a weight scale; 0: a whole row
    act_scale: ActScale = "per_token"
    act_percentile: float = 99.9  # of |x| per channel, for static scales
    smoothing: float = 0.0  # SmoothQuant's alpha; 0: none
    kernel: Kernel = "fake"

    def __post_init__(self) -> None:
        if self.block_size not in BLOCK_SIZES:
            raise SpecError(f"block_size must be one of {list(BLOCK_SIZES)}, got {self.block_size}")
        if self.weight_group_size not in GROUP_SIZES:
            raise SpecError(
                f"weight_group_size must be 0 (a row), 32, 64 or 128, got {self.weight_group_size}"
            )
        if not 0.0 <= self.smoothing <= 1.0:
            raise SpecError(f"smoothing must lie in [0, 1], got {self.smoothing}")
        if not 50.0 < self.act_percentile <= 100.0:
            raise SpecError(f"act_percentile must lie in (50, 100], got {self.act_percentile}")
        if self.kernel in INTEGER_KERNELS:
            self._check_integer_method()

    def check_kernel(self, layer: str, bits: tuple[int, int]) -> None:
        """Raise SpecError unless the kernel can compute a layer of these weight and input bits."""
        if self.kernel in INTEGER_KERNELS and max(bits) > _INTEGER_BITS:
            raise SpecError(
                f"kernel={self.kernel} multiplies integers of 2 to {_INTEGER_BITS} bits, and layer "
                f"{layer!r} has W{bits[0]}A{bits[1]}; use kernel=fake, or leave the layer at 16/16"
            )

    def _check_integer_method(self) -> None:
        for knob, allowed in _INTEGER_METHODS.items():
            value = getattr(self, knob)
            if value not in allowed:
                listed = " or ".join(str(option).lower() for option in allowed)
                raise SpecError(
                    f"kernel={self.kernel} needs {knob}={listed}, got {str(value).lower()}; "
                    "kernel=fake takes any"
                )


@dataclass(frozen=True)
class PolicySpec:
    """Which policy, and how it is called."""

    name: str  # "embedded" or "pi05_libero"
    checkpoint: str | None = None  # folder; None: the shipped weights (embedded only)
    tokenizer: str | None = None  # sentencepiece file of a pi0.5; None: in the checkpoint's folder
    num_steps: int = 10  # Euler steps of the flow, 1 to 100

    def __post_init__(self) -> None:
        if not 1 <= self.num_steps <= 100:
            raise SpecError(f"num_steps must be 1 to 100, got {self.num_steps}")


@dataclass(frozen=True)
class RuntimeSpec:
    """How the policy is executed."""

    # torch.compile on a CPU; on a GPU fused kernels, the whole call in one CUDA graph.
    compile: bool = False
    device: Device = "auto"  # auto: cuda where there is one
    threads: int = 1  # CPU threads of the policy

    def __post_init__(self) -> None:
        _check_positive(self.threads, "threads")


@dataclass(frozen=True)
class ProtocolSpec:
    """How an episode runs: the suite and its constants."""

    suite: str  # "duq_mini", one of LIBERO's, or "recorded", which has no episodes
    tasks: int  # number of tasks; where there are categories, of each
    init_states: int  # initial states a task; the first half is searched, the second reserved
    image_px: int  # side of the square camera images, as rendered; a policy resizes
    max_steps: int  # control steps after which an episode has failed
    nominal_steps: int  # control steps of a typical success; sets the nominal calls of an episode
    settle_steps: int  # idle steps before the first observation
    replan_steps: int  # actions executed of each predicted chunk
    seed: int = 7  # of the ledger's order and the flow noise
    # Folder of LIBERO's assets, or the file of suite `recorded`; None: the package's own lookup.
    assets: str | None = None
    renderer: Literal["auto", "osmesa", "egl"] = "auto"  # auto: egl where a GPU draws
    # Whose evaluation this follows, where they differ; our own suites have one protocol.
    protocol: Literal["own", "openpi", "lerobot"] = "own"
    # Forms in which the suite has each task, e.g. "original" and "object"; empty: one form only.
    categories: tuple[str, ...] = ()
    pro_files: str | None = None  # folder of LIBERO-PRO's tasks; None: where they are installed

    def __post_init__(self) -> None:
        for what in ("tasks", "image_px", "max_steps", "nominal_steps", "replan_steps"):
            _check_positive(getattr(self, what), what)
        twice = [name for name in self.categories if self.categories.count(name) > 1]
        if twice:
            raise SpecError(f"categories must be different, got {twice[0]!r} twice")
        if self.init_states < 2:
            raise SpecError(f"init_states must be at least 2, got {self.init_states}")
        if self.settle_steps < 0:
            raise SpecError(f"settle_steps must not be negative, got {self.settle_steps}")

    @property
    def nominal_calls(self) -> int:
        """Policy calls of an episode of nominal length."""
        return -(-self.nominal_steps // self.replan_steps)

    def episode_seed(self, init_state: int) -> int:
        """Seed of an episode's environment, which draws where fixtures stand, and of its noise.

        openpi's script seeds a task's environment once; lerobot-eval seeds it before each episode
        with the start seed (1000 by default) plus the episode's number.
        """
        return self.seed + init_state if self.protocol == "lerobot" else self.seed

    @property
    def total_tasks(self) -> int:
        """Tasks of all categories: those of the first, then those of the second, and so on."""
        return self.tasks * max(1, len(self.categories))

    def category(self, task: int) -> str | None:
        """The category of a task, 0 to `total_tasks` - 1; None where the suite has none."""
        return self.categories[task // self.tasks] if self.categories else None

    @property
    def search_states(self) -> int:
        """Initial states a task that a search may use; the rest is reserved for confirmation."""
        return self.init_states // 2


@dataclass(frozen=True)
class TrialSpec:
    """Everything that defines a trial."""

    policy: PolicySpec
    quant: QuantSpec
    runtime: RuntimeSpec
    protocol: ProtocolSpec

    def __post_init__(self) -> None:
        quant = self.quant
        if quant.rules and quant.kernel in INTEGER_KERNELS and self.runtime.device == "cpu":
            raise SpecError(
                f"kernel={quant.kernel} {INTEGER_NEEDS}, and runtime.device is cpu; "
                "kernel=fake runs there"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; `from_json` is the inverse."""
        return encode(self)

    @classmethod
    def from_json(cls, data: Any) -> TrialSpec:
        """Raises SpecError on unknown, missing or impossible values."""
        return decode(cls, data)


@dataclass(frozen=True)
class Trial:
    """One point of a sweep's space: the content of `trials/<number>/spec.json`."""

    number: int  # Optuna's
    name: str | None  # of the plan it was enqueued as, e.g. "reference"
    params: dict[str, bool | int | float | str]  # dotted key of the space -> value
    fingerprint: str
    spec: TrialSpec
    min_speedup: float = 0.0  # a trial slower than this against the reference gets no episode

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; `from_json` is the inverse."""
        return encode(self)

    @classmethod
    def from_json(cls, data: Any) -> Trial:
        """Raises SpecError on unknown, missing or impossible values."""
        return decode(cls, data)


@dataclass(frozen=True)
class LedgerEntry:
    """One episode that every trial of a sweep walks: the same state, the same noise."""

    i: int  # position in the ledger
    suite: str
    task: int
    init_state: int
    seed: int  # of the environment and, with the call's number, of the flow noise
