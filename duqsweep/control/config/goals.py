"""What a sweep trades and what it may spend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from duqsweep.categories import is_success_rate, named_category
from duqsweep.control.config.schema import ObjectiveConfig
from duqsweep.control.config.settings import did_you_mean
from duqsweep.control.config.until import Until
from duqsweep.control.front.measures import EPISODE_TIME_S, MEASURES, SUCCESS_RATE, measures_of
from duqsweep.control.front.objectives import Objective
from duqsweep.errors import ConfigError
from duqsweep.spec import SuiteSpec

DEFAULT_OBJECTIVES = (SUCCESS_RATE.name, EPISODE_TIME_S.name)


@dataclass(frozen=True)
class Budget:
    """How much a sweep may spend."""

    trials: int  # different trials; repetitions of a fingerprint are free
    episodes_per_trial: int  # 0: trials are benchmarked and play no episode
    tolerated_failures: float  # share of failed trials above which the exit code is 3
    until: Until | None = None  # the question whose answer ends the sweep early
    twins: bool = True  # whether the front's points are also timed without their quantization

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


def objectives_of(listed: Sequence[ObjectiveConfig], suite: SuiteSpec) -> tuple[Objective, ...]:
    """The objectives, success and time by default; raises ConfigError for a senseless one."""
    names = [objective.name for objective in listed] or list(DEFAULT_OBJECTIVES)
    known = measures_of(suite)
    for name in names:
        if name not in known:
            if named_category(name) is not None and not suite.categories:
                raise ConfigError(
                    f"there is no objective {name!r}: suite {suite.name} has no categories"
                )
            raise ConfigError(
                f"there is no objective {name!r}{did_you_mean(name, known)}; "
                f"objectives are: {', '.join(known)}"
            )
        if names.count(name) > 1:
            raise ConfigError(f"objectives lists {name!r} twice")
    for objective in listed:
        direction = known[objective.name].direction
        if objective.direction not in (None, direction):
            raise ConfigError(
                f"the direction of objective {objective.name} is {direction}, "
                f"got {objective.direction!r}"
            )
    return tuple(Objective(name, known[name].direction) for name in names)


def check_sharing(budget: Budget, objectives: Sequence[Objective]) -> None:
    """Raise ConfigError unless episodes decide on one objective and all others are measured."""
    played = [o.name for o in objectives if o.measure.needs_episodes]
    rates = [name for name in played if is_success_rate(name)]
    if budget.episodes_per_trial < 1:
        raise ConfigError(
            "sampler=kghv shares out episodes, so budget.episodes_per_trial starts at 1, got 0; "
            "without episodes use sampler=tpe"
        )
    if len(rates) != 1 or len(played) != 1 or len(objectives) < 2:
        raise ConfigError(
            "sampler=kghv trades exactly one success rate against objectives that need no "
            f"episodes, at least one; got {', '.join(o.name for o in objectives)}"
        )


def check_episodes(budget: Budget, objectives: Sequence[Objective], suite: SuiteSpec) -> None:
    """Raise ConfigError when an objective needs more episodes, or the ledger has too few."""
    wanted = budget.episodes_per_trial
    if wanted == 0:
        played = [o.name for o in objectives if o.measure.needs_episodes]
        if played:
            others = ", ".join(m.name for m in MEASURES.values() if not m.needs_episodes)
            raise ConfigError(
                f"budget.episodes_per_trial is 0, and the objective {played[0]} needs at least "
                f"1; without episodes objectives are: {others}"
            )
        return
    categories = len(suite.categories)
    if wanted < categories and any(named_category(o.name) for o in objectives):
        raise ConfigError(
            f"budget.episodes_per_trial is {wanted}, and success by category needs at least "
            f"{categories}: {suite.name} has the categories {', '.join(suite.categories)}"
        )
    available = suite.total_tasks * suite.search_states
    if wanted > available:
        raise ConfigError(
            f"budget.episodes_per_trial is {wanted}, and the ledger of "
            f"{suite.name} holds {available} ({suite.total_tasks} tasks × half of "
            f"{suite.init_states} initial states; the other half is reserved)"
        )
