"""What a sweep trades and what it may spend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from duqsweep.categories import SUCCESS_RATE, is_success_rate, named_category, of_category
from duqsweep.control.config.schema import ObjectiveConfig
from duqsweep.control.config.settings import did_you_mean
from duqsweep.errors import ConfigError
from duqsweep.spec import ProtocolSpec

DIRECTIONS = {
    "success_rate": "maximize",
    "episode_time_s": "minimize",
    "call_ms": "minimize",
    "modelled_time_s": "minimize",
    "weights_mb": "minimize",
    "action_error": "minimize",
    "mean_weight_bits": "minimize",
}
DEFAULT_OBJECTIVES = ("success_rate", "episode_time_s")


@dataclass(frozen=True)
class Objective:
    """One thing that the sweep trades."""

    name: str
    direction: str  # maximize or minimize


@dataclass(frozen=True)
class Budget:
    """How much a sweep may spend."""

    trials: int  # different trials; repetitions of a fingerprint are free
    episodes_per_trial: int  # 0: trials are benchmarked and play no episode
    tolerated_failures: float  # share of failed trials above which the exit code is 3

    def __post_init__(self) -> None:
        if self.trials < 1 or self.episodes_per_trial < 0:
            raise ConfigError(
                "budget.trials starts at 1 and budget.episodes_per_trial at 0, "
                f"got {self.trials} and {self.episodes_per_trial}"
            )
        if not 0 <= self.tolerated_failures <= 1:
            raise ConfigError(
                f"budget.tolerated_failures is a share, 0 to 1, got {self.tolerated_failures}"
            )


def objectives_of(
    listed: Sequence[ObjectiveConfig], protocol: ProtocolSpec
) -> tuple[Objective, ...]:
    """The objectives, success and time by default; raises ConfigError for a senseless one."""
    names = [objective.name for objective in listed] or list(DEFAULT_OBJECTIVES)
    directions = {
        **DIRECTIONS,
        **{of_category(SUCCESS_RATE, name): "maximize" for name in protocol.categories},
    }
    for name in names:
        if name not in directions:
            category = named_category(name)
            if category is not None and not protocol.categories:
                raise ConfigError(
                    f"there is no objective {name!r}: suite {protocol.suite} has no categories"
                )
            raise ConfigError(
                f"there is no objective {name!r}{did_you_mean(name, directions)}; "
                f"objectives are: {', '.join(directions)}"
            )
        if names.count(name) > 1:
            raise ConfigError(f"objectives lists {name!r} twice")
    for objective in listed:
        if objective.direction not in (None, directions[objective.name]):
            raise ConfigError(
                f"objective {objective.name} can only be told to {directions[objective.name]}, "
                f"got {objective.direction!r}"
            )
    return tuple(Objective(name, directions[name]) for name in names)


def check_episodes(budget: Budget, objectives: Sequence[Objective], protocol: ProtocolSpec) -> None:
    """Raise ConfigError when success is traded without an episode, or the ledger has too few."""
    wanted = budget.episodes_per_trial
    if wanted == 0:
        successes = [o.name for o in objectives if is_success_rate(o.name)]
        if successes:
            others = ", ".join(name for name in DIRECTIONS if not is_success_rate(name))
            raise ConfigError(
                f"budget.episodes_per_trial is 0, and the objective {successes[0]} needs at least "
                f"1; without episodes objectives are: {others}"
            )
        return
    categories = len(protocol.categories)
    if wanted < categories and any(named_category(o.name) for o in objectives):
        raise ConfigError(
            f"budget.episodes_per_trial is {wanted}, and success by category needs at least "
            f"{categories}: {protocol.suite} has the categories {', '.join(protocol.categories)}"
        )
    available = protocol.total_tasks * protocol.search_states
    if wanted > available:
        raise ConfigError(
            f"budget.episodes_per_trial is {wanted}, and the ledger of "
            f"{protocol.suite} holds {available} ({protocol.total_tasks} tasks × half of "
            f"{protocol.init_states} initial states; the other half is reserved)"
        )
