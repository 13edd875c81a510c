"""What a search knows of a trial."""

from __future__ import annotations

from dataclasses import dataclass

from duqsweep.control.config.parameters import Params
from duqsweep.control.kghv.common_episodes import Counts


@dataclass(frozen=True)
class Known:
    """What is known of a trial."""

    number: int
    params: Params | None  # None: a plan that is no point of the space
    successes: int
    episodes: int  # successes and failures
    # The other objectives, all minimised, as logarithms; None: not measured yet.
    costs: tuple[float, ...] | None
    pending: int = 0  # episodes that are being evaluated now
    is_done: bool = False  # gets no more episodes
    has_failed: bool = False  # it cannot be evaluated; it says nothing of the rates of others
    blocks: Counts = ()  # its counts by blocks of the ledger; (): its episodes are its own
