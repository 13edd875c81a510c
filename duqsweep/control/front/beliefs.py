"""What a model of all trials believes of each trial's success rate: `posterior.json`.

A search with such a model writes it. Its means are nearly unbiased, while the raw rates of a front
are too good, because lucky trials get there; so the front goes by them where they exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from duqsweep import files
from duqsweep.codec import decode, encode


@dataclass(frozen=True)
class Belief:
    """The posterior of a success rate, and the trial's other objectives."""

    mean: float  # 0 to 1
    sd: float
    p_front: float | None = None  # probability to be on the front; None where it cannot be
    # The objectives beside the success rate, in their order, without the noise of their measures:
    # logarithms, minus those of maximised ones; None where they are not known.
    costs: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Answer:
    """What is known of the question of `budget.until`."""

    question: str  # e.g. `fastest@success>=0.9`
    is_known: bool  # well enough: the sweep ends
    trial: int | None  # that is most probably the fastest; None where the front is asked for
    # That this trial is it, and at most that a new point beats it: of the best one, as predicted.
    probability: float | None
    rival_probability: float | None
    # Expected, as shares of the hypervolume: what the front lacks of the best of the trials, and
    # what the best new point would add.
    front_loss: float | None
    new_gain: float | None


@dataclass(frozen=True)
class Beliefs:
    """The content of posterior.json."""

    trials: dict[str, Belief]  # by number
    answer: Answer | None = None  # None without `budget.until`

    @property
    def by_number(self) -> dict[int, Belief]:
        """By number."""
        return {int(number): belief for number, belief in self.trials.items()}


def read_beliefs(sweep_dir: Path) -> Beliefs:
    """What a search has written; empty where none has.

    Raises:
        ConfigError: The file is torn, or not of this version of duqsweep.
    """
    found = files.read_derived(
        sweep_dir / files.POSTERIOR_JSON,
        lambda data: decode(Beliefs, data, files.POSTERIOR_JSON),
        "of another version",
        "the sweep's next start writes it again",
    )
    return Beliefs({}) if found is None else found


def write_beliefs(sweep_dir: Path, beliefs: Beliefs) -> None:
    """Replace the file, if anything has changed."""
    path = sweep_dir / files.POSTERIOR_JSON
    if not path.exists() or files.read_json(path) != encode(beliefs):
        files.write_json(path, encode(beliefs))
