"""Kernels are compiled by parts of layers that are called as a whole call would call them."""

from __future__ import annotations

import pytest
import torch
from pi05_inputs import INSTRUCTIONS, noise_of, seen
from torch import Tensor

from duqsweep.inference import kernel_compilation
from duqsweep.inference.compile import compile_policy
from duqsweep.inference.compiled_expert import CompiledExpert, PaddedPrefix
from duqsweep.inference.kernel_compilation import compile_kernels, cut_to_ends
from duqsweep.inference.prefix import FusedPrefix
from duqsweep.kernels import nvrtc
from duqsweep.policy.load import load_policy
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.policy.random_pi05 import RandomPi05, small_sizes, write_random
from duqsweep.spec import PolicySpec

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Pi05Policy:
    folder = tmp_path_factory.mktemp("pi05")
    write_random(folder, RandomPi05(small_sizes()))
    return load_policy(PolicySpec("pi05_libero", str(folder), num_steps=2), DEVICE)


@torch.no_grad()
def test_parts_are_called_with_tensors_of_a_calls_shapes(policy: Pi05Policy) -> None:
    """On a CPU, layers that a GPU would compute by kernels compute the same without."""
    prefix = FusedPrefix(policy.module)
    prefix.traceable = (False, False)
    sizes, images, tokens = policy.module.sizes, 2, 11
    made = [part() for part in prefix.parts(images, tokens)]
    vision = (images * sizes.vision.patches_per_side**2, sizes.vision.width)
    length = images * sizes.vision.tokens + tokens
    heads = sizes.llm.heads + 2 * sizes.llm.kv_heads
    shapes = [tuple(part.shape) for part in made if isinstance(part, Tensor)]
    assert shapes.count(vision) >= 1
    assert shapes.count((length, sizes.llm.width)) == 2
    assert shapes.count((length, heads * sizes.llm.head_dim)) == 1
    prefix.traceable = (True, True)
    prefix.deferred = False
    assert not prefix.parts(images, tokens)  # torch.compile's own


def test_a_cut_policy_is_called_as_a_whole_one(
    policy: Pi05Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is compiled here: each module computes as it is."""
    called: list[tuple[int, ...]] = []
    denoise = CompiledExpert.denoise

    def watched(self: CompiledExpert, noise: Tensor, prefix: PaddedPrefix) -> Tensor:
        called.append((len(self.layers), len(prefix.caches)))
        return denoise(self, noise, prefix)

    class Other:
        """Not what an expert is."""

    monkeypatch.setattr(FusedPrefix, "compile", lambda self, any_length: None)
    monkeypatch.setattr(CompiledExpert, "denoise", watched)
    monkeypatch.setattr(kernel_compilation, "CompiledExpert", Other)
    # Not above: this defines Triton's kernels, and their own tests choose beforehand how.
    from duqsweep.inference import backends

    monkeypatch.setattr(backends, "EXPERT_BACKENDS", backends.EXPERT_BACKENDS[-1:])
    cut = policy.copy(policy.num_steps)
    cut_to_ends(cut.module)
    shared = {tensor.data_ptr() for tensor in policy.weights()}
    assert {tensor.data_ptr() for tensor in cut.weights()} <= shared
    steps = policy.num_steps
    assert cut.module.modulations(steps).shape == policy.module.modulations(steps).shape
    inputs = policy.frontend.inputs(seen(INSTRUCTIONS[0], 0), noise_of(policy, 0))
    depth = policy.module.sizes.expert.depth
    compile_kernels(cut, inputs, depth, lambda: None)
    assert called == [(depth, depth)]


def test_an_error_of_a_part_is_raised(policy: Pi05Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FusedPrefix, "compile", lambda self, any_length: None)
    monkeypatch.setattr("duqsweep.inference.backends.build_expert", lambda source: 1 / 0)
    cut = policy.copy(policy.num_steps)
    cut_to_ends(cut.module)
    inputs = policy.frontend.inputs(seen(INSTRUCTIONS[0], 0), noise_of(policy, 0))
    done: list[int] = []
    with pytest.raises(ZeroDivisionError):
        compile_kernels(cut, inputs, policy.module.sizes.llm.depth, lambda: done.append(1))
    assert done == [1]


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
def test_the_policy_finds_all_kernels_of_cuda_compiled(policy: Pi05Policy) -> None:
    cut = policy.copy(policy.num_steps)
    cut_to_ends(cut.module)
    case = (seen(INSTRUCTIONS[0], 0), noise_of(policy, 0))
    inputs = policy.frontend.inputs(*case)
    compile_kernels(cut, inputs, policy.module.sizes.llm.depth, lambda: policy.act(*case))
    before = nvrtc._build.cache_info().misses
    compile_policy(policy).act(*case)
    assert nvrtc._build.cache_info().misses == before
