"""The backends that can run the action expert on a GPU, in order of preference.

Only code that compiles for a GPU imports this file: two of the backends need Triton.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.inference.compiled_expert import CompiledExpert
from duqsweep.inference.merged_expert import ExpertSource
from duqsweep.inference.persistent_expert import PersistentExpert
from duqsweep.inference.triton_expert import LONGEST_PREFIX, TritonExpert
from duqsweep.kernels import e4m3_linear
from duqsweep.kernels.expert import persistent
from duqsweep.kernels.expert.limits import TOKENS
from duqsweep.kernels.machine import interpreted
from duqsweep.policy.pi05 import PrefixCache

log = logging.getLogger(__name__)

# The robot's state in the prompt changes the prompt's length from call to call. With keys padded to
# a multiple of this, two or three compiled forms are enough.
PAD_MULTIPLE = 64


class Expert(Protocol):
    """A compiled action expert."""

    def compile(self) -> None:
        """Apply torch.compile to the parts that are not kernels."""

    def prepare(self, cache: PrefixCache) -> Any:
        """Prepare a prefix of batch 1 for `denoise`."""

    def denoise(self, noise: Tensor, prefix: Any) -> Tensor:
        """Integrate the flow from noise to actions, both (horizon, action_dim) in float32."""

    def products_done(self) -> dict[str, int]:
        """Products that the last `denoise` counted on the GPU, by name; empty if it counts none."""

    def weights(self) -> list[Tensor]:
        """Every tensor that a call reads, without scratch buffers."""


@dataclass(frozen=True)
class Backend:
    """One way to run an expert."""

    name: str
    unsupported_reason: Callable[[ExpertSource], str | None]  # None: it can run this expert here
    build: Callable[[ExpertSource], Expert]


def cuda_reason(source: ExpertSource) -> str | None:
    """Why the persistent kernel in CUDA C++ cannot run this expert; None: it can."""
    if not source.has_integers() and not source.has_e4m3():
        return "none of its products multiplies integers or numbers of e4m3"
    reason = source.merge_reason()
    if reason is not None:
        return reason
    merged = source.merged
    return persistent.unsupported_reason(merged.shape, merged.layers, merged.modulations.dtype)


def triton_reason(source: ExpertSource) -> str | None:
    """Why Triton kernels cannot run this expert, or would be slower; None: use them.

    On an H200, an unquantized expert takes 5.2 ms with these kernels and 7.8 ms with torch.compile
    for 10 tokens, but 18.0 ms and 8.7 ms for 50 tokens.
    """
    reason = source.merge_reason()
    if reason is not None:
        return reason
    if source.has_e4m3():
        return "these kernels run integer and unquantized layers, and some are e4m3"
    device, sizes = source.module.action_in_proj.weight.device, source.module.sizes
    if device.type != "cuda" and not interpreted():
        return f"the expert's kernels run on a CUDA GPU, got {device}"
    if sizes.horizon > TOKENS and not source.has_integers():
        return f"torch.compile is faster for unquantized chunks of more than {TOKENS} actions"
    if source.merged.longest_prefix > LONGEST_PREFIX:
        return (
            f"a prefix may have {source.merged.longest_prefix} tokens, more than {LONGEST_PREFIX}"
        )
    return None


def torch_reason(source: ExpertSource) -> str | None:
    """Why torch.compile cannot run this expert; None: it can."""
    if source.has_integers():
        return "its layers multiply integers"
    if source.has_e4m3():
        return e4m3_linear.device_reason(source.module.action_in_proj.weight.device)
    return None


EXPERT_BACKENDS = (
    Backend("cuda", cuda_reason, lambda source: PersistentExpert(source.merged)),
    Backend("triton", triton_reason, lambda source: TritonExpert(source.merged)),
    Backend(
        "torch",
        torch_reason,
        lambda source: CompiledExpert(
            source.module, source.num_steps, PAD_MULTIPLE, source.schedule
        ),
    ),
)


@torch.no_grad()
def build_expert(source: ExpertSource) -> Expert:
    """Build the expert on the first backend that supports it; log why earlier ones do not.

    Raises:
        EvaluationError: No backend supports it; the message gives the reason of each.
    """
    reasons: list[str] = []
    for backend in EXPERT_BACKENDS:
        reason = backend.unsupported_reason(source)
        if reason is None:
            log.info("the expert runs on backend %s", "; ".join([backend.name, *reasons]))
            return backend.build(source)
        reasons.append(f"not on {backend.name}, because {reason}")
    raise EvaluationError(f"no backend runs this expert: {'; '.join(reasons)}")
