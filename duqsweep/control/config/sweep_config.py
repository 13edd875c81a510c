"""What a sweep is: the checked record that the control side works from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from duqsweep.checkpoint.distilled import distilled_steps
from duqsweep.checkpoint.locate import check_checkpoint, policy_sizes
from duqsweep.checkpoint.sizes import linear_layers
from duqsweep.checkpoint.vocabulary import check_words
from duqsweep.codec import decode
from duqsweep.conf_dir import conf_dir, group_options
from duqsweep.control.config.compose import as_yaml, explain, load
from duqsweep.control.config.goals import (
    Budget,
    check_episodes,
    check_sharing,
    objectives_of,
)
from duqsweep.control.config.schema import (
    ControllerConfig,
    LauncherConfig,
    RootConfig,
    SamplerConfig,
    TrackingConfig,
)
from duqsweep.control.config.settings import (
    LAYERS,
    NUM_STEPS,
    SETTABLE,
    Base,
    check_settable,
    did_you_mean,
)
from duqsweep.control.config.until import parse_until
from duqsweep.control.front.objectives import Objective
from duqsweep.envs.assets import RECORDED, instructions
from duqsweep.envs.simulator_info import describe_simulator
from duqsweep.errors import ConfigError
from duqsweep.setting import declared_settings
from duqsweep.spec import LayerRule, PolicySpec, RuntimeSpec, SuiteSpec

__all__ = [
    "Budget",
    "LauncherConfig",
    "SamplerConfig",
    "SweepConfig",
    "TrackingConfig",
    "as_yaml",
    "check_inputs",
    "check_name",
    "compose",
    "conf_dir",
    "load",
    "to_config",
]

LAUNCHERS = ("inline", "local", "slurm")
SHARES_OUT = "kghv"  # the sampler that decides on batches of episodes, not on whole trials
SAMPLERS = (SHARES_OUT, "tpe", "nsga2", "gp", "random", "grid")
TRACKINGS = ("sqlite", "server", "none")
REFERENCE = "reference"  # the plan of the unquantized policy


@dataclass(frozen=True)
class SweepConfig:
    """One sweep, as configured; `Space.from_config` checks its space."""

    name: str
    directory: Path  # absolute
    seed: int
    base: Base  # what every trial starts from
    space: Mapping[str, Any]  # settable key → Hydra's sweep grammar
    when: Mapping[str, str]  # key of the space → condition
    plans: Mapping[str, Mapping[str, Any]]  # name → settable key → value
    enqueue: tuple[str, ...]  # plans that are the first trials
    objectives: tuple[Objective, ...]
    budget: Budget
    margin: float  # of success rate, that the verdict tolerates
    launcher: LauncherConfig
    sampler: SamplerConfig
    tracking: TrackingConfig
    storage_url: str | None
    moved_from: Path | None  # where the sweep's folder was, as the storage has it
    composed: DictConfig = field(repr=False, compare=False)  # the whole configuration

    @cached_property
    def yaml(self) -> str:
        """The whole configuration as YAML; see `as_yaml`."""
        return as_yaml(self.composed)

    @property
    def shares_out(self) -> bool:
        """Whether the sampler shares all episodes out among the trials as it sees fit."""
        return self.sampler.name == SHARES_OUT

    @property
    def total_episodes(self) -> int:
        """Episodes that the whole sweep may spend."""
        return self.budget.trials * self.budget.episodes_per_trial

    @property
    def batch(self) -> int:
        """Episodes of one assignment, where the sampler shares them out."""
        wanted = self.sampler.batch or 2 * self.base.suite.total_tasks
        return min(wanted, self.budget.episodes_per_trial)

    @property
    def most_trials(self) -> int:
        """Trials that the sweep may start; where episodes are shared out, one per batch."""
        return -(-self.total_episodes // self.batch) if self.shares_out else self.budget.trials


def compose(overrides: Sequence[str], config_dir: Path | None = None) -> SweepConfig:
    """The sweep that a command line configures; see `compose.load` for the forms of `overrides`.

    Raises:
        ConfigError: It has a mistake that can be found without looking at the machine.
    """
    return to_config(load(overrides, config_dir))


def check_inputs(config: SweepConfig) -> None:
    """Raise ConfigError unless the suite can be played and all files are there."""
    check_checkpoint(config.base.policy)
    describe_simulator(config.base.suite)
    episodes = config.budget.episodes_per_trial
    if episodes and config.base.suite.name == RECORDED:
        raise ConfigError(
            f"suite {RECORDED} holds observations and no episodes, so budget.episodes_per_trial "
            f"must be 0, got {episodes}; suite=duq_mini can be played"
        )
    suite = config.base.suite
    check_words(config.base.policy, suite.name, instructions(suite))


def to_config(config: DictConfig) -> SweepConfig:
    """A composed configuration as a checked record.

    Raises:
        ConfigError: A value is missing or impossible, or values do not fit together.
    """
    _check_protocol(config)
    try:
        root = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    assert isinstance(root, RootConfig)
    name = check_name(root.name)
    declared_settings(SuiteSpec)["seed"].check("seed", root.seed)
    base = _base(root)
    objectives = objectives_of(root.objectives, base.suite)
    asked, shares_out = root.budget, root.sampler.name == SHARES_OUT
    budget = Budget(
        asked.trials,
        asked.episodes_per_trial,
        asked.tolerated_failures,
        parse_until(asked.until, asked.until_probability, shares_out, objectives),
        asked.twins,
    )
    check_episodes(budget, objectives, base.suite)
    _check_choice("launcher", root.launcher.name, LAUNCHERS)
    _check_choice("sampler", root.sampler.name, SAMPLERS)
    _check_choice("tracking", root.tracking.name, TRACKINGS)
    _check_launcher(root.launcher)
    if root.sampler.startup_trials < 1 or root.sampler.population < 2:
        raise ConfigError("sampler.startup_trials starts at 1 and sampler.population at 2")
    if root.sampler.batch < 0:
        raise ConfigError(f"sampler.batch starts at 0, got {root.sampler.batch}")
    if not 0 <= root.sampler.least_success < 1:
        raise ConfigError(
            "sampler.least_success is a success rate from 0 to below 1, "
            f"got {root.sampler.least_success}"
        )
    if root.sampler.name == SHARES_OUT:
        check_sharing(budget, objectives)
    return SweepConfig(
        name=name,
        directory=_absolute(root.dir),
        seed=root.seed,
        base=base,
        space=root.space,
        when=root.when,
        plans=_plans(root.plans, base),
        enqueue=_enqueue(root),
        objectives=objectives,
        budget=budget,
        margin=_margin(root.verdict.margin),
        launcher=root.launcher,
        sampler=root.sampler,
        tracking=root.tracking,
        storage_url=root.storage.url,
        moved_from=_absolute(root.storage.moved_from) if root.storage.moved_from else None,
        composed=config,
    )


def _plans(plans: Mapping[str, dict[str, Any]], base: Base) -> dict[str, dict[str, Any]]:
    """The plans; the reference of a distilled checkpoint has the student's most steps."""
    if not base.distilled_steps or REFERENCE not in plans:
        return dict(plans)
    steps = {NUM_STEPS: base.distilled_steps[-1]}
    return {**plans, REFERENCE: {**plans[REFERENCE], **steps}}


def _absolute(folder: str) -> Path:
    return Path(folder).expanduser().absolute()


def _check_protocol(config: DictConfig) -> None:
    """Raise ConfigError unless the suite has constants for the protocol, which others refer to."""
    asked, known = config.suite.protocol, list(config.suite.protocols) or [SuiteSpec.protocol]
    if asked not in known:
        raise ConfigError(
            f"suite.protocol of {config.suite.name} must be one of {', '.join(known)}, "
            f"got {asked!r}"
        )


def check_name(name: str | None) -> str:
    """The name of a sweep; raises ConfigError unless there is one that can be a folder's."""
    if name is None:
        sweeps = ", ".join(group_options().get("sweep", []))
        raise ConfigError(f"which sweep? Add +sweep=NAME; sweeps are: {sweeps}")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ConfigError(f"name is a folder's name of letters, digits and _ . -, got {name!r}")
    return name


def _base(root: RootConfig) -> Base:
    chosen = {k: v for k, v in vars(root.policy).items() if k != "needs"}
    policy = decode(PolicySpec, _with_absolute_paths(PolicySpec, chosen), "policy")
    settings = {key: attrgetter(key)(root) for key in SETTABLE}
    settings |= {f"{LAYERS}{path}": bits for path, bits in root.quant.weight_bits.layers.items()}
    for key, value in settings.items():  # bits also where nothing is quantized
        check_settable(key, "the configuration").check(key, value)
    suite = {k: v for k, v in vars(root.suite).items() if k != "protocols"}
    suite = _with_absolute_paths(SuiteSpec, suite)
    runtime = _with_absolute_paths(RuntimeSpec, vars(root.runtime))
    sizes = policy_sizes(policy)
    base = Base(
        policy=policy,
        runtime=decode(RuntimeSpec, runtime, "runtime"),
        suite=decode(SuiteSpec, {**suite, "seed": root.seed}, "suite"),
        rules=tuple(
            decode(LayerRule, vars(rule), f"quant.rules[{i}]")
            for i, rule in enumerate(root.quant.rules)
        ),
        includes={name: tuple(regexes) for name, regexes in root.includes.items()},
        settings=settings,
        layers=linear_layers(sizes),
        horizon=sizes.horizon,
        distilled_steps=distilled_steps(policy),
        cores=_cores(root.launcher),
    )
    base.spec({})  # refuses impossible values; layers are resolved with the space
    return base


def _cores(launcher: LauncherConfig) -> int:
    """CPU cores of a job: SLURM gives what was asked for, this machine has what it has."""
    if launcher.name == "slurm":
        return launcher.cpus_per_task
    return len(os.sched_getaffinity(0))


def _with_absolute_paths(record: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    paths = {
        name: str(Path(settings[name]).expanduser().absolute())
        for name, declared in declared_settings(record).items()
        if declared.path and settings[name] is not None
    }
    return {**settings, **paths}


def _enqueue(root: RootConfig) -> tuple[str, ...]:
    for name in root.enqueue:
        if name not in root.plans:
            raise ConfigError(
                f"enqueue: there is no plan {name!r}{did_you_mean(name, root.plans)}; "
                f"plans are: {', '.join(root.plans)}"
            )
        if root.enqueue.count(name) > 1:
            raise ConfigError(f"enqueue lists {name!r} twice")
    if not root.enqueue and not root.space:
        raise ConfigError("a sweep needs a space, or plans to enqueue; this one has neither")
    return tuple(root.enqueue)


def _check_launcher(launcher: LauncherConfig) -> None:
    if launcher.jobs < 0 or launcher.cpus_per_task < 1 or launcher.gpus_per_node < 0:
        raise ConfigError(
            "launcher.jobs and launcher.gpus_per_node start at 0, launcher.cpus_per_task at 1"
        )
    if launcher.simulators < 0:
        raise ConfigError(
            f"launcher.simulators starts at 1, or is 0 for as many as a job's cores allow, "
            f"got {launcher.simulators}"
        )
    if launcher.timeout_min < 1 or launcher.idle_s <= 0:
        raise ConfigError("launcher.timeout_min starts at 1, and launcher.idle_s is positive")
    if launcher.hang_min <= 0:
        raise ConfigError(f"launcher.hang_min must be positive, got {launcher.hang_min:g}")
    if launcher.mem_gb is not None and launcher.mem_gb <= 0:
        raise ConfigError(
            f"launcher.mem_gb must be positive, or null to ask for none, got {launcher.mem_gb:g}"
        )
    _check_controller(launcher.controller)


def _check_controller(controller: ControllerConfig) -> None:
    key = "launcher.controller"
    if controller.cpus_per_task < 1 or controller.timeout_min < 1:
        raise ConfigError(f"{key}.cpus_per_task and {key}.timeout_min start at 1")
    if not 1 <= controller.signal_s <= 30 * controller.timeout_min:
        raise ConfigError(
            f"{key}.signal_s is a time before the job's end, at least 1 s and at most half of "
            f"{key}.timeout_min={controller.timeout_min}, got {controller.signal_s}"
        )
    if controller.mem_gb is not None and controller.mem_gb <= 0:
        raise ConfigError(
            f"{key}.mem_gb must be positive, or null to ask for none, got {controller.mem_gb:g}"
        )


def _margin(margin: float) -> float:
    if not 0 < margin < 1:
        raise ConfigError(f"verdict.margin is a share between 0 and 1, got {margin}")
    return margin


def _check_choice(key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(
            f"{key}.name must be one of {', '.join(allowed)}, got {value!r}"
            f"{did_you_mean(value, allowed)}"
        )
