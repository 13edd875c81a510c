"""The keys of conf/ and their types, so that Hydra refuses a misspelt key or a wrong type.

The sections `policy`, `suite`, `quant` and `runtime` take their keys from the settings that
`duqsweep.spec` declares. Not frozen, because Hydra merges files into them; `sweep_config.to_config`
makes checked records of them.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache, partial
from typing import Any, Literal, TypeVar

from omegaconf import MISSING, DictConfig, OmegaConf

from duqsweep.control.front.verdict import MARGIN
from duqsweep.setting import Setting, declared_settings, setting
from duqsweep.spec import (
    BITS_ALLOWED,
    BITS_TEXT,
    PolicySpec,
    QuantSpec,
    RuntimeSpec,
    SuiteSpec,
)

ROOT = "schema"  # its name in the defaults list of conf/config.yaml
_C = TypeVar("_C")


def _with_settings_of(record: type, *left_out: str) -> Callable[[type[_C]], type[_C]]:
    """Give a class of the schema the fields of `record` that are settings, but for some."""

    def add(cls: type[_C]) -> type[_C]:
        for declared in declared_settings(record).values():
            if declared.name not in left_out:
                cls.__annotations__[declared.name] = _schema_type(declared.hint)
                setattr(cls, declared.name, _schema_field(record, declared))
        return cls

    return add


def _schema_field(record: type, declared: Setting) -> Any:
    (own,) = (each for each in fields(record) if each.name == declared.name)
    # A list of values may stand in the type, which is a plain one here.
    metadata = {**own.metadata, "allowed": declared.allowed}
    if isinstance(own.default, tuple):
        return field(default_factory=partial(list, own.default), metadata=metadata)
    default = MISSING if own.default is dataclasses.MISSING else own.default
    return field(default=default, metadata=metadata)


def _schema_type(hint: Any) -> Any:
    """The type under which OmegaConf holds a value of type `hint`."""
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin is Literal:
        return type(arguments[0])
    if origin is tuple:
        return list[_schema_type(arguments[0])]  # type: ignore[misc]
    if origin in (types.UnionType, typing.Union):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _schema_type(inner) | None
    return hint


@dataclass
class NeedsConfig:
    """What a job that evaluates the policy asks SLURM for, unless the launcher says otherwise."""

    cpus: int = 1  # cores of a SLURM job, unless the launcher says otherwise
    gpus: int = 0  # GPUs of a SLURM job
    mem_gb: float = 8.0  # memory of a SLURM job


@dataclass
@_with_settings_of(PolicySpec)
class PolicyConfig:
    """Group policy/: which policy, and how it is called."""

    needs: NeedsConfig = field(default_factory=NeedsConfig)


@dataclass
class WeightBitsConfig:
    """Bits of the weights: one default, and what replaces it."""

    default: int = field(
        default=4,
        metadata=setting(
            "weight bits of the layers that quant.include reaches",
            allowed=BITS_ALLOWED,
            allowed_text=BITS_TEXT,
        ),
    )
    first_last: int | None = field(
        default=None,
        metadata=setting(
            "weight bits of the first and the last layer of each stack; null: the default",
            allowed=BITS_ALLOWED,
            allowed_text=BITS_TEXT,
        ),
    )
    layers: dict[str, int] = field(
        default_factory=dict,
        metadata=setting(
            "weight bits of single layers: number, or path such as gemma_expert.model.layers.0",
            allowed=BITS_ALLOWED,
            allowed_text=BITS_TEXT,
        ),
    )


@dataclass
class RuleConfig:
    """A rule with bits of its own, tried before `include`."""

    include: str = MISSING
    weight_bits: int = MISSING
    act_bits: int = MISSING


@dataclass
@_with_settings_of(QuantSpec)
class QuantConfig:
    """Which layers are quantized, with how many bits, and how."""

    include: str = field(
        default="none",
        metadata=setting("layers: a name in `includes`, or a regex on openpi's layer names"),
    )
    rules: list[RuleConfig] = field(default_factory=list)
    weight_bits: WeightBitsConfig = field(default_factory=WeightBitsConfig)
    act_bits: int = field(
        default=8,
        metadata=setting(
            "activation bits of the layers that quant.include reaches",
            allowed=BITS_ALLOWED,
            allowed_text=BITS_TEXT,
        ),
    )


@dataclass
@_with_settings_of(RuntimeSpec)
class RuntimeConfig:
    """How the policy is executed."""


@dataclass
@_with_settings_of(SuiteSpec, "seed")
class SuiteConfig:
    """Group suite/: the episodes and their constants."""

    protocols: dict[str, dict[str, int]] = field(default_factory=dict)  # constants of each


@dataclass
class ObjectiveConfig:
    """One thing that the sweep trades."""

    name: str = MISSING  # a measure, e.g. success_rate, episode_time_s, weights_mb
    direction: str | None = None  # null: the one that makes sense; another is refused


@dataclass
class BudgetConfig:
    """How much a sweep may spend."""

    trials: int = 16  # different trials; repetitions of a fingerprint are free
    episodes_per_trial: int = 12  # from the ledger that all trials share
    tolerated_failures: float = 0.25  # share of failed trials above which the exit code is 3
    until: str | None = None  # kghv: ends the sweep early; fastest@success>=X, or front@E
    until_probability: float = 0.95  # that the answer of fastest@ must have
    twins: bool = True  # at the end, time the front's points without their quantization


@dataclass
class VerdictConfig:
    """When a fast trial counts as good enough."""

    margin: float = MARGIN  # loss of success rate against the unquantized policy that is tolerated


@dataclass
class ControllerConfig:
    """The sweep's own process as a job of SLURM, which --as-job submits."""

    timeout_min: int = 1440  # of one run; before its end the job puts itself back into the queue
    signal_s: int = 120  # before its end, so that it can leave in order
    cpus_per_task: int = 1  # cores
    mem_gb: float | None = 2.0  # null: the partition's own
    partition: str | None = None  # null: the launcher's; so are account and qos
    account: str | None = None  # null: the launcher's
    qos: str | None = None  # null: the launcher's
    additional_parameters: dict[str, Any] = field(default_factory=dict)  # of sbatch


@dataclass
class LauncherConfig:
    """Group launcher/: where the trials run."""

    name: str = MISSING  # inline, local or slurm
    jobs: int = 0  # at once; 0: one per GPU, or per core without one; local: several may share one
    reuse: bool = True  # a job takes one assignment after another
    timeout_min: int = 240  # of one job; a trial that it cuts short is resumed by another
    hang_min: float = 60.0  # without any progress, after which an evaluation is ended
    idle_s: float = 60.0  # without an assignment, after which a job ends by itself
    cpus_per_task: int = 1  # cores of one job
    simulators: int = 0  # at once, of each job; 0: one per core but for the policy's, at least 1
    gpus_per_node: int = 0  # GPUs of one job, of any type
    gres: str | None = None  # e.g. gpu:h200:1, instead of gpus_per_node
    exclusive: bool = False  # no other job on the node, so that nothing disturbs the timing
    mem_gb: float | None = 8.0  # null: the partition's own
    partition: str | None = None  # or several with commas; the first that has room is taken
    account: str | None = None  # as sbatch has it
    qos: str | None = None  # as sbatch has it
    constraint: str | None = None  # as sbatch has it
    additional_parameters: dict[str, Any] = field(default_factory=dict)  # of sbatch
    setup: list[str] = field(default_factory=list)  # shell lines before the job
    controller: ControllerConfig = field(default_factory=ControllerConfig)


@dataclass
class SamplerConfig:
    """Group sampler/: what proposes the trials."""

    name: str = MISSING  # kghv, tpe, nsga2, gp, random or grid
    startup_trials: int = 10  # kghv, tpe and gp: random ones first
    batch: int = 0  # kghv: episodes of one assignment; 0: two of each task
    least_success: float = 0.0  # kghv: lower success rates count for nothing; 0: half of the best
    population: int = 20  # nsga2: trials per generation


@dataclass
class TrackingConfig:
    """Group tracking/: where MLflow's copy of the sweep goes."""

    name: str = MISSING  # sqlite, server or none
    uri: str | None = None  # server: null takes MLFLOW_TRACKING_URI


@dataclass
class StorageConfig:
    """Where Optuna keeps the study."""

    url: str | None = None  # null: a journal in the sweep's folder; or postgresql+psycopg2://…
    moved_from: str | None = None  # where the sweep's folder was, if it was moved since


@dataclass
class RootConfig:
    """Everything that conf/config.yaml composes."""

    name: str | None = None  # of the sweep
    dir: str = "sweeps/${name}"  # relative to where the command was typed
    seed: int = SuiteSpec.seed  # of sampler, ledger and flow noise
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    suite: SuiteConfig = field(default_factory=SuiteConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    includes: dict[str, list[str]] = field(default_factory=dict)  # sets of layers: their regexes
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)  # named points: their settings
    space: dict[str, Any] = field(default_factory=dict)  # searched keys: their values
    when: dict[str, str] = field(default_factory=dict)  # searched keys: their conditions
    enqueue: list[str] = field(default_factory=list)  # plans that are evaluated first
    objectives: list[ObjectiveConfig] = field(default_factory=list)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    verdict: VerdictConfig = field(default_factory=VerdictConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)


@cache
def schema() -> DictConfig:
    """The types and the defaults of all keys, to merge into; not to be changed."""
    config: DictConfig = OmegaConf.structured(RootConfig)
    return config


@cache
def register() -> None:
    """Make the schema known to Hydra; may be called again, at no cost."""
    from hydra.core.config_store import ConfigStore  # Hydra takes long to import

    ConfigStore.instance().store(name=ROOT, node=RootConfig, provider="duqsweep")
