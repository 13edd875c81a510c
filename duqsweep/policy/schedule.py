"""The times of a call's denoising steps: 1 is noise, 0 the actions."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from duqsweep.spec import UNIFORM, Schedule


def flow_times(num_steps: int, schedule: Schedule = UNIFORM) -> Tensor:
    """(num_steps + 1,) float32, falling from 1 to 0: where steps begin, and where the last ends.

    uniform: 1, 1 - 1/n, ..., 0. shifted: s·t / (1 + (s - 1)·t) of these, the time shift of Stable
    Diffusion 3 (arXiv:2403.03206). cosine: (1 + cos(πi/n)) / 2, whose first and last
    steps are the shortest.
    """
    # In float32, as openpi's: the features of the time amplify its rounding.
    even = torch.cat((1.0 - torch.arange(num_steps) / num_steps, torch.zeros(1)))
    if schedule.kind == "uniform":
        return even
    exact = 1.0 - torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    if schedule.kind == "shifted":
        exact = schedule.shift * exact / (1.0 + (schedule.shift - 1.0) * exact)
    else:
        exact = (1.0 - torch.cos(torch.pi * exact)) / 2.0
    exact[0], exact[-1] = 1.0, 0.0
    return exact.float()


def step_sizes(num_steps: int, schedule: Schedule = UNIFORM) -> tuple[float, ...]:
    """By how much the time falls in each step; the sum is 1."""
    if schedule.kind == "uniform":
        return (1.0 / num_steps,) * num_steps
    times = flow_times(num_steps, schedule).tolist()
    return tuple(begin - end for begin, end in itertools.pairwise(times))
