"""The fused prefix against `Pi05.encode_images` and `Pi05.prefix`."""

from __future__ import annotations

import copy

import pytest
import torch

from duqsweep.checkpoint.sizes import PolicySizes, StackSizes, VisionSizes, sizes_of
from duqsweep.inference.prefix import FusedPrefix
from duqsweep.inference.prefix_attention import attention_on
from duqsweep.inference.prefix_products import GeluMlp, mlp
from duqsweep.kernels.norms import Norm
from duqsweep.policy.pi05 import Pi05

STACK = StackSizes(width=32, depth=3, mlp=48, heads=8, kv_heads=1, head_dim=16)
MANY_HEADS_ONE_KEY = PolicySizes(
    vision=VisionSizes(width=16, depth=2, mlp=16, heads=2, patch_px=8, image_px=16),
    llm=STACK,
    expert=STACK,
    horizon=5,
    action_dim=9,
    vocabulary=20,
    prompt_tokens=8,
    cameras=2,
)


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("sizes", [sizes_of("embedded"), MANY_HEADS_ONE_KEY])
@torch.no_grad()
def test_fused_prefix_gives_the_same_cache(sizes: PolicySizes, deferred: bool) -> None:
    torch.manual_seed(0)
    module = Pi05(sizes)
    for value in module.parameters():
        value.normal_(std=0.2 if value.ndim == 1 else value[0].numel() ** -0.5)
    px = sizes.vision.image_px
    images = torch.rand(1, sizes.cameras, 3, px, px) * 2 - 1
    prompt = torch.randint(sizes.vocabulary, (1, 5))
    expected = module.prefix(module.encode_images(images), prompt)
    fused = FusedPrefix(module)
    assert not fused.deferred
    fused.deferred = deferred  # as on a GPU
    cache = fused(images[0], prompt[0])
    assert len(cache) == len(expected) == sizes.llm.depth
    for pair, expected_pair in zip(cache, expected, strict=True):
        for value, wanted in zip(pair, expected_pair, strict=True):
            assert value.shape == wanted.shape
            assert (value - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@torch.no_grad()
def test_channels_that_fill_cache_lines_change_nothing() -> None:
    torch.manual_seed(1)
    first, last = torch.nn.Linear(16, 72), torch.nn.Linear(72, 16)
    x = torch.randn(5, 16)
    norm = Norm(torch.ones(16), torch.zeros(16))
    expected = x + last(torch.nn.functional.gelu(first(norm.apply(x)), approximate="tanh"))
    made = mlp(norm, [first, last], torch.float32)
    assert isinstance(made, GeluMlp)
    assert len(made.weight) == made.last.product.weight.shape[1] == 128
    torch.testing.assert_close(made(x), expected)
    assert last.weight.stride() == (72, 1)


def test_a_copy_of_a_module_shares_the_attention() -> None:
    for device in ("cuda", "cpu"):
        attend = attention_on(torch.device(device))
        assert copy.deepcopy(attend) is attend
