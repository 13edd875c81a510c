"""What defines a trial: the records that the control side writes and the worker reads.

Every record is frozen and checked when it is made, so an impossible one cannot exist. Nothing here
knows Hydra, Optuna, torch or LIBERO.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from duqsweep.codec import decode, encode
from duqsweep.errors import SpecError
from duqsweep.setting import Rule, check_settings, setting

FULL_PRECISION = 16
BITS_ALLOWED = (2, 3, 4, 5, 6, 7, 8, FULL_PRECISION)
BITS_TEXT = "2 to 8, or 16 for full precision"
BLOCK_SIZES = (16, 32, 64, 128)
GROUP_SIZES = (0, 32, 64, 128)  # 0: a whole row
MAX_SEED = 2**31 - 1  # NumPy's, torch's and the simulator's generators take all of these
INTEGER_KERNELS = ("int8", "w4a8")
FEW_BIT_KERNELS = (*INTEGER_KERNELS, "fp8")  # multiply what others only round to
# What these kernels can do: the inputs' scales must be known before the product and the same along
# its sum, and one order and one rotation serve all of a layer.
_FEW_BIT_METHODS: dict[str, tuple[object, ...]] = {
    "rotation": ("hadamard", "none"),
    "row_rotation": (False,),
    "act_scale": ("per_token",),
    "smoothing": (0.0,),
}
_INTEGER_METHODS = {**_FEW_BIT_METHODS, "number_format": ("integer",)}
_METHODS = {
    "int8": _INTEGER_METHODS,
    "w4a8": _INTEGER_METHODS,
    "fp8": {**_FEW_BIT_METHODS, "weight_group_size": (0,)},
}
KERNEL_NEEDS = {  # of each kernel that multiplies few bits
    **dict.fromkeys(
        INTEGER_KERNELS, "needs a CUDA GPU (compute capability 8.0 or higher) and triton"
    ),
    "fp8": "needs a CPU, or a CUDA GPU (compute capability 9.0 or higher) and triton",
}

Rotation = Literal["hadamard", "svd", "greedy", "none"]
Permutation = Literal["zigzag", "prototype", "none"]
WeightScale = Literal["mse", "absmax"]
ActScale = Literal["per_token", "static"]
Kernel = Literal["fake", "loop", "int8", "w4a8", "fp8"]
Numbers = Literal["integer", "e4m3"]
ScheduleKind = Literal["uniform", "shifted", "cosine"]
Device = Literal["auto", "cpu", "cuda"]


def check_bits(bits: int, what: str) -> None:
    """Raise SpecError unless `bits` is 2 to 8, or 16 for full precision."""
    if bits not in BITS_ALLOWED:
        raise SpecError(f"{what} must be {BITS_TEXT}, got {bits}")


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


def mixes_channels(quant: QuantSpec) -> bool:
    """Whether neighbouring input channels are rotated together or share a scale.

    Where they are not, their order changes no result.
    """
    return quant.rotation != "none" or quant.weight_group_size > 0


def has_blocks(quant: QuantSpec) -> bool:
    """Whether the block size has an effect: blocks are rotated, or balanced by their order."""
    balances = quant.permutation == "zigzag" and mixes_channels(quant)
    return quant.rotation != "none" or balances


def numbers_of(quant: QuantSpec) -> Numbers:
    """What weights and activations are rounded to, times a scale."""
    return "e4m3" if quant.kernel == "fp8" else quant.number_format


def _chooses_numbers(quant: QuantSpec) -> bool:
    """Whether the number format has an effect; integers, the first format, are not recorded."""
    return quant.kernel != "fp8" and quant.number_format != "integer"


def _has_static_scales(quant: QuantSpec) -> bool:
    return quant.act_scale == "static"


def _check_method(quant: QuantSpec) -> None:
    for name, allowed in _METHODS.get(quant.kernel, {}).items():
        value = getattr(quant, name)
        if value not in allowed:
            listed = " or ".join(str(option).lower() for option in allowed)
            raise SpecError(
                f"kernel={quant.kernel} needs {name}={listed}, got {str(value).lower()}; "
                "kernel=fake takes any"
            )


def _check_device(quant: QuantSpec, device: Device) -> None:
    if quant.rules and quant.kernel in INTEGER_KERNELS and device == "cpu":
        raise SpecError(
            f"kernel={quant.kernel} {KERNEL_NEEDS[quant.kernel]}, and runtime.device is cpu; "
            "kernel=fake runs there"
        )


# What several settings of the quantizer must fulfil together; `quant.select` has the rules of
# single layers.
_CHECKED = dict.fromkeys(name for methods in _METHODS.values() for name in methods)
METHOD_RULES = (Rule(("kernel", *_CHECKED), _check_method),)
DEVICE_RULE = Rule(("kernel", "rules"), _check_device)


@dataclass(frozen=True)
class QuantSpec:
    """How the selected layers are quantized (DESIGN: select, calibrate, freeze)."""

    rules: tuple[LayerRule, ...] = ()  # empty: the policy stays as it is
    layer_bits: tuple[LayerBits, ...] = ()
    rotation: Rotation = field(
        default="hadamard",
        metadata=setting("orthogonal matrix that mixes the channels of each block"),
    )
    block_size: int = field(
        default=16,
        metadata=setting(
            "channels that one rotation mixes; divides the layer's input width",
            allowed=BLOCK_SIZES,
            used=has_blocks,
        ),
    )
    permutation: Permutation = field(
        default="zigzag",
        metadata=setting(
            "order of the input channels; zigzag balances the blocks", used=mixes_channels
        ),
    )
    row_rotation: bool = field(
        default=False, metadata=setting("whether the outputs are rotated too, and back")
    )
    weight_scale: WeightScale = field(
        default="mse",
        metadata=setting(
            "how a weight scale is chosen: least squared error, or the largest weight",
            packs="rounded",
        ),
    )
    weight_group_size: int = field(
        default=0,
        metadata=setting(
            "input channels that share a weight scale; 0: a whole row",
            allowed=GROUP_SIZES,
            packs="rounded",
        ),
    )
    act_scale: ActScale = field(
        default="per_token",
        metadata=setting(
            "scale of the activations: computed for each token, or calibrated for each channel",
            packs="none",
        ),
    )
    act_percentile: float = field(
        default=99.9,
        metadata=setting(
            "percentile of |x| of a channel that a static scale covers",
            above=50,
            high=100,
            packs="none",
            used=_has_static_scales,
        ),
    )
    smoothing: float = field(
        default=0.0, metadata=setting("SmoothQuant's alpha; 0: no smoothing", low=0, high=1)
    )
    kernel: Kernel = field(
        default="fake",
        metadata=setting(
            "how products are computed: simulated (fake; loop: block by block), in integers, or "
            "in e4m3 (fp8)",
            packs="none",
        ),
    )
    number_format: Numbers = field(
        default="integer",
        metadata=setting(
            "what values are rounded to, times a scale: integers of the bits set, or e4m3 (floats "
            "of 8 bits), which kernel fp8 has in any case",
            packs="none",  # `pack_key` has `numbers_of`
            used=_chooses_numbers,
        ),
    )

    def __post_init__(self) -> None:
        check_settings(self, "quant")
        for rule in METHOD_RULES:
            rule.of(self)()


@dataclass(frozen=True)
class Schedule:
    """How a call's denoising steps divide the flow's time; `policy.schedule` has the arithmetic."""

    kind: ScheduleKind = "uniform"
    shift: float = 3.0  # of kind "shifted"


UNIFORM = Schedule()


def _divides_time(policy: PolicySpec) -> bool:
    """Whether a schedule has an effect; the uniform one, the first, is not recorded."""
    return policy.schedule != UNIFORM.kind and policy.num_steps > 1


def _reuses_images(policy: PolicySpec) -> bool:
    """Without reuse nothing is recorded."""
    return policy.reuse_images


def _is_shifted(policy: PolicySpec) -> bool:
    return policy.schedule == "shifted" and policy.num_steps > 1


@dataclass(frozen=True)
class PolicySpec:
    """Which policy, and how it is called."""

    name: str = field(metadata=setting("embedded or pi05_libero", shared=True))
    checkpoint: str | None = field(
        default=None,
        metadata=setting(
            "folder of the weights; null: the shipped ones (embedded only)", shared=True, path=True
        ),
    )
    tokenizer: str | None = field(
        default=None,
        metadata=setting(
            "sentencepiece file of a pi0.5; null: in the checkpoint's folder",
            shared=True,
            path=True,
        ),
    )
    num_steps: int = field(
        default=10, metadata=setting("denoising (Euler) steps of the flow", low=1, high=100)
    )
    schedule: ScheduleKind = field(
        default=UNIFORM.kind,
        metadata=setting(
            "times of the steps: equally far apart, shifted, or cosine (short at both ends)",
            used=_divides_time,
        ),
    )
    schedule_shift: float = field(
        default=UNIFORM.shift,
        metadata=setting(
            "s of schedule shifted, which turns time t into s·t / (1 + (s - 1)·t); above 1 steps "
            "near the noise are shorter",
            above=0,
            high=100,
            used=_is_shifted,
        ),
    )
    reuse_images: bool = field(
        default=False,
        metadata=setting(
            "encode cameras one by one, and none again while its picture is the same to the bit; "
            "not in CUDA graphs",
            used=_reuses_images,
        ),
    )

    def __post_init__(self) -> None:
        check_settings(self, "policy")

    @property
    def times(self) -> Schedule:
        """How the steps divide the flow's time."""
        return Schedule(self.schedule, self.schedule_shift)


@dataclass(frozen=True)
class RuntimeSpec:
    """How the policy is executed."""

    compile: bool = field(
        default=False,
        metadata=setting(
            "on a CPU one C++ function per layer; on a GPU fused kernels, the call in CUDA graphs"
        ),
    )
    device: Device = field(
        default="auto",
        metadata=setting("where the policy runs; auto: cuda where there is one", shared=True),
    )
    threads: int = field(default=1, metadata=setting("CPU threads of the policy", low=1))

    def __post_init__(self) -> None:
        check_settings(self, "runtime")


@dataclass(frozen=True)
class SuiteSpec:
    """How an episode runs: the suite and its constants."""

    name: str = field(
        metadata=setting(
            "duq_mini, one of LIBERO's, or recorded, which has no episodes", shared=True
        )
    )
    tasks: int = field(
        metadata=setting("number of tasks; where there are categories, of each", low=1, shared=True)
    )
    init_states: int = field(
        metadata=setting(
            "initial states per task; the first half is searched, the second reserved",
            low=2,
            shared=True,
        )
    )
    image_px: int = field(
        metadata=setting(
            "side of the square camera images, as rendered; a policy resizes", low=1, shared=True
        )
    )
    max_steps: int = field(
        metadata=setting("control steps after which an episode has failed", low=1, shared=True)
    )
    nominal_steps: int = field(
        metadata=setting(
            "control steps of a typical success; sets the nominal calls of an episode",
            low=1,
            shared=True,
        )
    )
    settle_steps: int = field(
        metadata=setting("idle steps before the first observation", low=0, shared=True)
    )
    replan_steps: int = field(metadata=setting("actions executed of each predicted chunk", low=1))
    seed: int = field(
        default=7,
        metadata=setting(
            "of the ledger's order and the flow noise", low=0, high=MAX_SEED, shared=True
        ),
    )
    assets: str | None = field(
        default=None,
        metadata=setting(
            "folder of LIBERO's assets, or the file of suite recorded; null: those installed",
            shared=True,
            path=True,
        ),
    )
    renderer: Literal["auto", "osmesa", "egl"] = field(
        default="auto", metadata=setting("auto: egl where a GPU draws, else osmesa", shared=True)
    )
    protocol: Literal["own", "openpi", "lerobot"] = field(
        default="own",
        metadata=setting(
            "whose evaluation is followed, where they differ; own: our suites have one",
            shared=True,
        ),
    )
    categories: tuple[str, ...] = field(
        default=(),
        metadata=setting(
            "forms in which the suite has each task, e.g. original and object; empty: one form",
            shared=True,
        ),
    )
    pro_files: str | None = field(
        default=None,
        metadata=setting(
            "folder of LIBERO-PRO's tasks; null: where they are installed", shared=True, path=True
        ),
    )

    def __post_init__(self) -> None:
        check_settings(self, "suite")
        twice = [name for name in self.categories if self.categories.count(name) > 1]
        if twice:
            raise SpecError(f"suite.categories must be different, got {twice[0]!r} twice")

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
        """Initial states per task that a search may use; the rest is reserved for confirmation."""
        return self.init_states // 2


@dataclass(frozen=True)
class TrialSpec:
    """Everything that defines a trial."""

    policy: PolicySpec
    quant: QuantSpec
    runtime: RuntimeSpec
    suite: SuiteSpec

    def __post_init__(self) -> None:
        DEVICE_RULE.of(self.quant)(self.runtime.device)

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
    """One episode that every trial of a sweep runs: the same state, the same noise."""

    i: int  # position in the ledger
    suite: str
    task: int
    init_state: int
    seed: int  # of the environment and, with the call's number, of the flow noise
