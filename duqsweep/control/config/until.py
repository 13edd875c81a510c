"""`budget.until`: the question whose answer ends a sweep before its budget does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from duqsweep.control.front.measures import CALL_MS, EPISODE_TIME_S
from duqsweep.control.front.objectives import Objective
from duqsweep.errors import ConfigError

TIMES = (EPISODE_TIME_S.name, CALL_MS.name)
_FORMS = "fastest@success>=X or front@E, X and E between 0 and 1"
_FASTEST = re.compile(r"fastest@success>=(0?\.\d+)")
_FRONT = re.compile(r"front@(0?\.\d+)")


@dataclass(frozen=True)
class Until:
    """What is to be known before the sweep ends early."""

    text: str
    probability: float  # that the answer is right, for `fastest@`
    least_success: float | None  # the fastest trial with so much success is asked for
    loss: float | None  # the front is asked for, to this share of its hypervolume


def parse_until(
    text: str | None, probability: float, shares_out: bool, objectives: Sequence[Objective]
) -> Until | None:
    """The question; None where there is none.

    Args:
        text: `fastest@success>=X`, or `front@E`.
        probability: That the answer must have.
        shares_out: Whether the sampler has a model of success.
        objectives: Of the sweep.

    Raises:
        ConfigError: It is none of the forms, or this sweep cannot answer it.
    """
    if not 0.5 <= probability < 1:
        raise ConfigError(f"budget.until_probability is from 0.5 to below 1, got {probability:g}")
    if text is None:
        return None
    fastest, front = _FASTEST.fullmatch(text.replace(" ", "")), _FRONT.fullmatch(text)
    found = fastest or front
    if found is None or not float(found[1]):
        raise ConfigError(f"budget.until is {_FORMS}; got {text!r}")
    if not shares_out:
        raise ConfigError(
            "budget.until needs sampler=kghv, whose model says what is known; other samplers spend "
            "budget.trials and budget.episodes_per_trial"
        )
    if fastest and not any(objective.name in TIMES for objective in objectives):
        raise ConfigError(
            f"budget.until={text} needs one of the objectives {', '.join(TIMES)}; there are "
            f"{', '.join(objective.name for objective in objectives)}"
        )
    limit = float(found[1])
    return Until(text, probability, limit if fastest else None, None if fastest else limit)
