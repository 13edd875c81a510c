"""Ways to run the action expert on a GPU, in the order in which they are tried.

Imported where a policy is compiled on a GPU: two of them need Triton.
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
from duqsweep.kernels.expert import persistent
from duqsweep.kernels.expert.limits import TOKENS
from duqsweep.kernels.machine import interpreted
from duqsweep.policy.pi05 import PrefixCache

log = logging.getLogger(__name__)

# A state in the prompt makes its length change from call to call, by its digits. Two or three
# compiled forms then serve all of them.
KEYS_ALIKE = 64


class Expert(Protocol):
    """A compiled action expert."""

    def compile(self) -> None:
        """torch.compile what is not written as kernels."""

    def prepare(self, cache: PrefixCache) -> Any:
        """Make a prefix of batch 1 ready for `denoise`."""

    def denoise(self, noise: Tensor, prefix: Any) -> Tensor:
        """Follow the flow from noise to actions, both (horizon, action_dim) in float32."""

    def products_done(self) -> dict[str, int]:
        """What the last `denoise` counted on the GPU: products of a kernel that makes many."""

    def weights(self) -> list[Tensor]:
        """Every tensor that a call reads, scratch space apart."""


@dataclass(frozen=True)
class Backend:
    """One way to run an expert."""

    name: str
    unsupported_reason: Callable[[ExpertSource], str | None]  # None: it can run this expert here
    build: Callable[[ExpertSource], Expert]


def cuda_reason(source: ExpertSource) -> str | None:
    """Why the denoising loop cannot be one kernel in CUDA C++."""
    if not source.has_integers():
        return "none of its products is of integers"
    reason = source.merge_reason()
    if reason is not None:
        return reason
    merged = source.merged
    return persistent.unsupported_reason(
        merged.shape, merged.layers, merged.modulations.dtype, merged.longest_prefix
    )


def triton_reason(source: ExpertSource) -> str | None:
    """Why it cannot be several kernels per layer in Triton, or had better not.

    On an H200 an unquantized expert takes 5.2 ms with kernels and 7.8 compiled for 10 tokens, but
    18.0 with kernels and 8.7 compiled for 50.
    """
    reason = source.merge_reason()
    if reason is not None:
        return reason
    device, sizes = source.module.action_in_proj.weight.device, source.module.sizes
    if device.type != "cuda" and not interpreted():
        return f"the expert's kernels run on a CUDA GPU, got {device}"
    if sizes.horizon > TOKENS and not source.has_integers():
        return f"compiled code is faster for unquantized chunks of more than {TOKENS} actions"
    if source.merged.longest_prefix > LONGEST_PREFIX:
        return (
            f"a prefix may have {source.merged.longest_prefix} tokens, more than {LONGEST_PREFIX}"
        )
    return None


def torch_reason(source: ExpertSource) -> str | None:
    """Why it cannot be left to torch.compile."""
    return "its layers multiply integers" if source.has_integers() else None


EXPERT_BACKENDS = (
    Backend("cuda", cuda_reason, lambda source: PersistentExpert(source.merged)),
    Backend("triton", triton_reason, lambda source: TritonExpert(source.merged)),
    Backend(
        "torch",
        torch_reason,
        lambda source: CompiledExpert(source.module, source.num_steps, KEYS_ALIKE),
    ),
)


@torch.no_grad()
def build_expert(source: ExpertSource) -> Expert:
    """The expert on the first backend that supports it; the log says why others do not.

    Raises:
        EvaluationError: None does.
    """
    reasons: list[str] = []
    for backend in EXPERT_BACKENDS:
        reason = backend.unsupported_reason(source)
        if reason is None:
            log.info("the expert runs on backend %s", "; ".join([backend.name, *reasons]))
            return backend.build(source)
        reasons.append(f"not on {backend.name}, because {reason}")
    raise EvaluationError(f"no backend runs this expert: {'; '.join(reasons)}")
