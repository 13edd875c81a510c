"""How alike the pictures of two calls of an episode are, and what keeping the older would cost.

python benchmarks/visual_reuse.py                      # the shipped policy on duq_mini, one core
python benchmarks/visual_reuse.py suite=libero_spatial # any suite and policy of the configuration
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from duqsweep.control.config.sweep_config import compose
from duqsweep.envs.libero import open_environment
from duqsweep.policy.load import load_policy
from duqsweep.seams import EagerPolicy, Observation
from duqsweep.worker.episode import run_episode
from duqsweep.worker.hardware import resolve_device
from duqsweep.worker.ledger import make_ledger

BASE = ("name=visual_reuse", "enqueue=[reference]")
THRESHOLDS = (1.0, 2.0, 5.0)  # mean |difference| of a picture, of 255
PATCH_PX = 16  # about as many patches per picture as SigLIP has


@dataclass
class Changes:
    """Of one camera, over the calls of all episodes but each one's first."""

    means: list[float] = field(default_factory=list)  # mean |difference| to the last picture
    equal: list[bool] = field(default_factory=list)  # to the bit
    patches: list[float] = field(default_factory=list)  # share of patches that are equal
    # Mean square of what the normalised actions change by, had the last picture been kept.
    errors: list[float] = field(default_factory=list)

    def add(self, before: NDArray[np.uint8], now: NDArray[np.uint8], error: float) -> None:
        """Compare two pictures."""
        difference = np.abs(now.astype(np.int16) - before)
        self.means.append(float(difference.mean()))
        self.equal.append(not difference.any())
        side = len(now) // PATCH_PX * PATCH_PX
        squares = difference[:side, :side].reshape(side // PATCH_PX, PATCH_PX, -1, PATCH_PX, 3)
        self.patches.append(float((squares.max((1, 3, 4)) == 0).mean()))
        self.errors.append(error)

    def below(self, limit: float) -> str:
        """The share of calls that changed by at most `limit`, and their action error."""
        chosen = [e for e, mean in zip(self.errors, self.means, strict=True) if mean <= limit]
        error = f"{np.mean(chosen) ** 0.5:.3f}" if chosen else "–"
        return f"{len(chosen) / len(self.means):.1%}, {error}"


class Watching:
    """A policy that compares what it sees with its last call, and acts as it would."""

    def __init__(self, policy: EagerPolicy) -> None:
        self.policy = policy
        self.horizon, self.action_dim = policy.horizon, policy.action_dim
        self.num_steps = policy.num_steps
        self.changes: dict[str, Changes] = defaultdict(Changes)
        self.last: Observation | None = None  # of this episode
        self.calls = 0

    def act(self, observation: Observation, noise: NDArray[np.float32]) -> NDArray[np.float64]:
        """See `Policy`."""
        self.calls += 1
        if self.last is not None:
            exact = self.policy.act_normalised(observation, noise)
            for name, before in self.last.images.items():
                kept = replace(observation, images={**observation.images, name: before})
                moved = self.policy.act_normalised(kept, noise) - exact
                error = float(np.square(moved).mean())
                self.changes[name].add(before, observation.images[name], error)
        images = {name: image.copy() for name, image in observation.images.items()}
        self.last = replace(observation, images=images)
        return self.policy.act(observation, noise)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play an episode of each task and print a line per camera."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=1, help="of each task")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_intermixed_args(arguments)
    torch.set_num_threads(1)
    config = compose([*BASE, *options.overrides])
    spec = config.base.spec({})
    policy = Watching(load_policy(spec.policy, resolve_device(spec.runtime.device)))
    environment = open_environment(spec.suite)
    entries = make_ledger(spec.suite)[: options.episodes * spec.suite.total_tasks]
    for entry in entries:
        policy.last = None
        run_episode(environment, policy, entry, spec.suite)  # type: ignore[arg-type]
    environment.close()
    print(f"{spec.suite.name}: {len(entries)} episodes, {policy.calls} calls")
    heads = [f"changed by at most {limit:g}: calls, action error" for limit in THRESHOLDS]
    heads += ["kept always: action error", "median change", "equal patches"]
    print(f"| camera | equal to the bit | {' | '.join(heads)} |")
    print("|---|---|" + "---|" * len(heads))
    for name, each in policy.changes.items():
        cells = [f"{np.mean(each.equal):.1%}", *map(each.below, THRESHOLDS)]
        cells.append(f"{np.mean(each.errors) ** 0.5:.3f}")
        cells += [f"{np.median(each.means):.2f}", f"{np.mean(each.patches):.1%}"]
        print(f"| {name} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
