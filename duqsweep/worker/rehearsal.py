"""Compiles a trial's kernels before its policy can be built, e.g. while simulators load.

A policy of a few of the trial's layers is built from made-up statistics, called once, and thrown
away. What it compiled stays in the process, so that the real one finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from duqsweep.checkpoint.io_spec import CAMERAS
from duqsweep.envs.assets import instructions
from duqsweep.inference.kernel_compilation import bits_of_ends, compile_kernels, cut_to_ends
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.quant.calibrate import LayerStats
from duqsweep.quant.select import Bits
from duqsweep.seams import Observation
from duqsweep.spec import SuiteSpec, TrialSpec
from duqsweep.worker.build import is_quick, quantized
from duqsweep.worker.cache import ReferencePolicy
from duqsweep.worker.noise import flow_noise
from duqsweep.worker.phases import phase


@dataclass
class Rehearsal:
    """What a trial's policy needs to have compiled, where that is quick to build on a GPU."""

    spec: TrialSpec
    reference: ReferencePolicy
    bits: Mapping[str, Bits]  # the layers that the trial quantizes
    layers: Mapping[str, tuple[int, int]]  # all layers and their shapes: outputs, inputs
    cache_dir: Path  # existing folder of the sweep's caches
    is_over: bool = False

    def play(self, seen: Observation) -> None:
        """Compile, unless that was done; and call the reference once, for its libraries' sake.

        Args:
            seen: Of the sizes that the suite's observations have, see `dark`.

        Raises:
            Exception: What the trial's policy would raise: it cannot be built, or not be called.
        """
        unquantized, spec = self.reference.policy, self.spec
        quick = spec.runtime.compile and is_quick(spec.quant, self.reference.device)
        if self.is_over or not quick or not isinstance(unquantized, Pi05Policy):
            return
        self.is_over = True
        noise = flow_noise((0,), unquantized.horizon, unquantized.action_dim)
        with phase("rehearsal"):
            few = bits_of_ends(unquantized.module, self.bits)
            stats = {name: _made_up(self.layers[name][1]) for name in few}
            policy = quantized(spec, self.reference, few, stats, self.cache_dir)
            assert isinstance(policy, Pi05Policy)
            cut_to_ends(policy.module)
            compile_kernels(
                policy,
                policy.frontend.inputs(seen, noise),
                depth=unquantized.module.sizes.llm.depth,
                meanwhile=lambda: unquantized.act(seen, noise),
            )
            policy.synchronize()


def _made_up(inputs: int) -> LayerStats:
    return LayerStats(torch.ones(inputs), percentile=torch.ones(inputs))


def dark(suite: SuiteSpec) -> Observation:
    """What would be seen without light; kernels depend on its sizes only."""
    picture = np.zeros((suite.image_px, suite.image_px, 3), np.uint8)
    return Observation(
        images=dict.fromkeys(CAMERAS, picture),
        eef_pos=np.zeros(3),
        eef_quat=np.array([0.0, 0.0, 0.0, 1.0]),
        gripper_qpos=np.zeros(2),
        instruction=instructions(suite)[0],
    )
