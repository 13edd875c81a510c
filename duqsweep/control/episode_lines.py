"""The episodes of a sweep as lines of JSON, so that others can test what they want with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from duqsweep.codec import FLAT, decode, encode
from duqsweep.control.trials.reader import TrialView
from duqsweep.result import EpisodeRecord

States = Literal["search", "reserved"]  # reserved: of `confirm`, which no search uses


@dataclass(frozen=True)
class EpisodeLine:
    """One episode of one trial: what `export --format episodes` writes as one line.

    Trials that share `states`, `suite`, `task`, `init_state` and `seed` met the same episode.
    """

    trial: int
    fingerprint: str  # of the trial's settings
    states: States
    episode: EpisodeRecord = field(metadata=FLAT)

    @classmethod
    def parse(cls, line: str) -> EpisodeLine:
        """Raises SpecError on unknown, missing or impossible values."""
        return decode(cls, json.loads(line))


def episode_lines(views: Iterable[TrialView], states: States) -> Iterator[str]:
    """The lines of all episodes of some trials, by trial and place in the ledger.

    The last attempt of each ledger entry stands for it; one that ended in an error has its `error`,
    and is neither a success nor a failure.
    """
    for view in views:
        for episode in view.episodes:
            line = EpisodeLine(view.number, view.trial.fingerprint, states, episode)
            yield _text(encode(line))


def _text(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False)
