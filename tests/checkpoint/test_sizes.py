"""Sizes and layer names without torch agree with the modules that torch builds."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from duqsweep.checkpoint.sizes import (
    EXPERT,
    LLM,
    VISION,
    StackSizes,
    VisionSizes,
    linear_layers,
    sizes_of,
)
from duqsweep.errors import ConfigError, SpecError
from duqsweep.policy.pi05 import Pi05


def on_meta(name: str) -> Pi05:
    with torch.device("meta"):
        return Pi05(sizes_of(name))


@pytest.mark.parametrize("name", ["embedded", "pi05_libero"])
def test_layer_names_and_shapes_are_those_of_the_built_module(name: str) -> None:
    stacks = (f"{VISION}.encoder.layers", f"{LLM}.layers", f"{EXPERT}.layers")
    built = {
        path: (layer.out_features, layer.in_features)
        for path, layer in on_meta(name).named_modules()
        if isinstance(layer, nn.Linear) and path.startswith(stacks) and "norm" not in path
    }
    listed = linear_layers(sizes_of(name))
    assert listed == built


def test_pi05_has_126_layers_in_the_expert_and_126_in_the_language_model() -> None:
    names = list(linear_layers(sizes_of("pi05_libero")))
    assert sum(name.startswith(EXPERT) for name in names) == 126
    assert sum(name.startswith(LLM) for name in names) == 126
    assert sum(name.startswith(VISION) for name in names) == 27 * 6


def test_layers_come_in_forward_order() -> None:
    names = list(linear_layers(sizes_of("embedded")))
    first = [names.index(next(n for n in names if n.startswith(s))) for s in (VISION, LLM, EXPERT)]
    assert first == sorted(first)
    assert names[-1].endswith("layers.5.mlp.down_proj")


def test_full_size_parameters_are_openpis() -> None:
    shapes = {name: tuple(p.shape) for name, p in on_meta("pi05_libero").named_parameters()}
    paligemma = "paligemma_with_expert.paligemma.model"
    vision = f"{paligemma}.vision_tower.vision_model"
    layer = "paligemma_with_expert.gemma_expert.model.layers.17"
    expected = {
        "action_in_proj.weight": (1024, 32),
        "action_out_proj.bias": (32,),
        "time_mlp_in.weight": (1024, 1024),
        "time_mlp_out.bias": (1024,),
        f"{layer}.input_layernorm.dense.weight": (3072, 1024),
        f"{layer}.post_attention_layernorm.dense.bias": (3072,),
        f"{layer}.self_attn.q_proj.weight": (2048, 1024),
        f"{layer}.self_attn.k_proj.weight": (256, 1024),
        f"{layer}.self_attn.o_proj.weight": (1024, 2048),
        f"{layer}.mlp.down_proj.weight": (1024, 4096),
        "paligemma_with_expert.gemma_expert.model.norm.dense.weight": (3072, 1024),
        f"{paligemma}.language_model.embed_tokens.weight": (257152, 2048),
        f"{paligemma}.language_model.layers.17.mlp.gate_proj.weight": (16384, 2048),
        f"{paligemma}.language_model.layers.17.input_layernorm.weight": (2048,),
        f"{paligemma}.language_model.norm.weight": (2048,),
        f"{paligemma}.multi_modal_projector.linear.weight": (2048, 1152),
        f"{vision}.embeddings.patch_embedding.weight": (1152, 3, 14, 14),
        f"{vision}.embeddings.position_embedding.weight": (256, 1152),
        f"{vision}.encoder.layers.26.self_attn.out_proj.bias": (1152,),
        f"{vision}.encoder.layers.26.mlp.fc1.weight": (4304, 1152),
        f"{vision}.encoder.layers.26.layer_norm2.bias": (1152,),
        f"{vision}.post_layernorm.weight": (1152,),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    # The total pins what the list leaves out: 9, 11 and 16 parameters a layer, and the rest.
    assert len(shapes) == 18 * 9 + 2 + 18 * 11 + 2 + 27 * 16 + 5 + 2 + 8


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'embedded', 'pi05_libero'.*got 'pi0'"):
        sizes_of("pi0")


def test_stacks_that_cannot_share_a_cache_are_refused() -> None:
    sizes = sizes_of("embedded")
    deeper = replace(sizes.expert, depth=sizes.expert.depth + 1)
    with pytest.raises(SpecError, match="depth"):
        replace(sizes, expert=deeper)


def test_impossible_widths_are_refused() -> None:
    with pytest.raises(SpecError, match="kv_heads"):
        StackSizes(width=32, depth=2, mlp=56, heads=3, kv_heads=2, head_dim=8)
    with pytest.raises(SpecError, match="merge"):
        VisionSizes(width=24, depth=1, mlp=8, heads=3, patch_px=8, image_px=24, merge=2)
    with pytest.raises(SpecError, match="depth must be at least 1"):
        StackSizes(width=32, depth=0, mlp=56, heads=4, kv_heads=2, head_dim=8)


def test_names_and_files_need_no_torch() -> None:
    modules = "duqsweep.checkpoint.locate, duqsweep.checkpoint.sizes"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
