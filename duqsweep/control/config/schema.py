"""The keys of conf/ and their types, so that Hydra refuses a misspelt key or a wrong type.

Not frozen, because Hydra merges files into them; `config.to_config` makes checked records of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from duqsweep.spec import PolicySpec, ProtocolSpec, QuantSpec, RuntimeSpec

_QUANT = QuantSpec()
_RUNTIME = RuntimeSpec()
ROOT = "schema"  # its name in the defaults list of conf/config.yaml


@dataclass
class PolicyConfig:
    """Group policy/: which policy, and how it is called."""

    name: str = MISSING
    checkpoint: str | None = None  # folder; null: the shipped weights
    tokenizer: str | None = None  # sentencepiece file of a pi0.5; null: in the checkpoint's folder
    num_steps: int = PolicySpec.num_steps


@dataclass
class WeightBitsConfig:
    """Bits of the weights: one default, and what replaces it; 2 to 8, or 16."""

    default: int = 4
    first_last: int | None = None  # the first and the last layer of each stack
    layers: dict[str, int] = field(default_factory=dict)  # "7", or a path such as "gemma_expert…"


@dataclass
class RuleConfig:
    """A rule with bits of its own, tried before `include`."""

    include: str = MISSING
    weight_bits: int = MISSING
    act_bits: int = MISSING


@dataclass
class QuantConfig:
    """How layers are quantized; the values are those of `spec.QuantSpec`."""

    include: str = "none"  # a name in `includes`, or a regex on openpi's layer names
    rules: list[RuleConfig] = field(default_factory=list)
    weight_bits: WeightBitsConfig = field(default_factory=WeightBitsConfig)
    act_bits: int = 8
    rotation: str = _QUANT.rotation
    block_size: int = _QUANT.block_size
    permutation: str = _QUANT.permutation
    row_rotation: bool = _QUANT.row_rotation
    weight_scale: str = _QUANT.weight_scale
    weight_group_size: int = _QUANT.weight_group_size
    act_scale: str = _QUANT.act_scale
    act_percentile: float = _QUANT.act_percentile
    smoothing: float = _QUANT.smoothing
    kernel: str = _QUANT.kernel


@dataclass
class RuntimeConfig:
    """How the policy is executed."""

    compile: bool = _RUNTIME.compile
    device: str = _RUNTIME.device
    threads: int = _RUNTIME.threads


@dataclass
class SuiteConfig:
    """Group suite/: the episodes and the constants of their protocol (`spec.ProtocolSpec`)."""

    name: str = MISSING
    tasks: int = MISSING
    init_states: int = MISSING
    image_px: int = MISSING
    max_steps: int = MISSING
    nominal_steps: int = MISSING
    settle_steps: int = MISSING
    replan_steps: int = MISSING
    assets: str | None = None
    renderer: str = ProtocolSpec.renderer
    protocol: str = ProtocolSpec.protocol
    protocols: dict[str, dict[str, int]] = field(default_factory=dict)  # constants of each
    categories: list[str] = field(default_factory=list)  # of LIBERO-PRO; empty: the suite has none
    pro_files: str | None = None


@dataclass
class ObjectiveConfig:
    """One thing that the sweep trades."""

    name: str = MISSING
    direction: str | None = None  # null: the one that makes sense; another is refused


@dataclass
class BudgetConfig:
    """How much a sweep may spend."""

    trials: int = 16  # different trials; repetitions of a fingerprint are free
    episodes_per_trial: int = 12
    tolerated_failures: float = 0.25  # share of failed trials above which the exit code is 3


@dataclass
class LauncherConfig:
    """Group launcher/: where the trials run."""

    name: str = MISSING  # inline, local or slurm
    jobs: int = 0  # at once; 0: one a CPU core
    reuse: bool = True  # a job takes one assignment after another
    timeout_min: int = 240
    hang_min: float = 60.0  # without any progress, after which an evaluation is ended
    idle_s: float = 60.0  # without an assignment, after which a job ends by itself
    cpus_per_task: int = 1
    gpus_per_node: int = 0
    mem_gb: float | None = 8.0  # null: the partition's own
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    additional_parameters: dict[str, Any] = field(default_factory=dict)  # of sbatch
    setup: list[str] = field(default_factory=list)  # shell lines before the job


@dataclass
class SamplerConfig:
    """Group sampler/: which of Optuna's samplers proposes the trials."""

    name: str = MISSING  # tpe, nsga2, gp, random or grid
    startup_trials: int = 10  # tpe and gp: random ones first
    population: int = 20  # nsga2: trials a generation


@dataclass
class TrackingConfig:
    """Group tracking/: where MLflow's copy of the sweep goes."""

    name: str = MISSING  # sqlite, server or none
    uri: str | None = None  # server: null takes MLFLOW_TRACKING_URI


@dataclass
class StorageConfig:
    """Where Optuna keeps the study."""

    url: str | None = None  # null: a journal in the sweep's folder; or postgresql+psycopg2://…


@dataclass
class RootConfig:
    """Everything that conf/config.yaml composes."""

    name: str | None = None
    dir: str = "sweeps/${name}"  # relative to where the command was typed
    seed: int = 7  # of sampler, ledger and flow noise
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    suite: SuiteConfig = field(default_factory=SuiteConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    includes: dict[str, list[str]] = field(default_factory=dict)
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    space: dict[str, Any] = field(default_factory=dict)
    when: dict[str, str] = field(default_factory=dict)
    enqueue: list[str] = field(default_factory=list)
    objectives: list[ObjectiveConfig] = field(default_factory=list)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)


def register() -> None:
    """Make the schema known to Hydra; may be called again."""
    ConfigStore.instance().store(name=ROOT, node=RootConfig, provider="duqsweep")
