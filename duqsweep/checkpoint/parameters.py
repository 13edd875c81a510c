"""Every parameter of a pi0.5 by name and shape, and what checkpoints hold beside them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from duqsweep.checkpoint.safetensors_header import StoredTensor
from duqsweep.checkpoint.sizes import EXPERT, LLM, VISION, PolicySizes, linear_layers
from duqsweep.errors import ConfigError

Shape = tuple[int, ...]

EMBEDDING = f"{LLM}.embed_tokens.weight"
LLM_HEAD = "paligemma_with_expert.paligemma.lm_head.weight"  # tied to the embedding
# The language-model heads make words, not actions: known, and left on the disk.
UNUSED = (LLM_HEAD, "paligemma_with_expert.gemma_expert.lm_head.weight")
LEROBOT_PREFIX = "model."  # the network is the attribute `model` of LeRobot's policy
PI0_ONLY = ("state_proj.", "action_time_mlp_in.", "action_time_mlp_out.")
LISTED = 3  # names that an error message gives of a longer list

# What stays float32 where the rest is bfloat16: these of PaliGemma and expert by
# `to_bfloat16_for_selected_params`, and the projections, which `PI0Pytorch` makes outside of it.
# Source: openpi, src/openpi/models_pytorch/gemma_pytorch.py and pi0_pytorch.py.
KEPT_FLOAT32 = (
    "patch_embedding",
    "position_embedding",
    "input_layernorm",
    "post_attention_layernorm",
    "model.norm",
    "action_in_proj",
    "action_out_proj",
    "time_mlp_in",
    "time_mlp_out",
)

# Layers that read the same input.
READ_ALIKE = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def parameter_shapes(sizes: PolicySizes) -> dict[str, Shape]:
    """Full name → shape of all that `pi05.Pi05` has."""
    vision, llm, expert = sizes.vision, sizes.llm, sizes.expert
    shapes: dict[str, Shape] = {}
    for name, (out_features, in_features) in linear_layers(sizes).items():
        shapes[f"{name}.weight"] = (out_features, in_features)
        if name.startswith(VISION):
            shapes[f"{name}.bias"] = (out_features,)
    patch = f"{VISION}.embeddings.patch_embedding"
    shapes[f"{patch}.weight"] = (vision.width, 3, vision.patch_px, vision.patch_px)
    shapes[f"{patch}.bias"] = (vision.width,)
    position = f"{VISION}.embeddings.position_embedding.weight"
    shapes[position] = (vision.patches_per_side**2, vision.width)
    norms = [f"encoder.layers.{i}.layer_norm{n}" for i in range(vision.depth) for n in (1, 2)]
    for norm in (*norms, "post_layernorm"):
        shapes[f"{VISION}.{norm}.weight"] = shapes[f"{VISION}.{norm}.bias"] = (vision.width,)
    projector = "paligemma_with_expert.paligemma.model.multi_modal_projector.linear"
    shapes |= _linear(projector, llm.width, vision.width * vision.merge**2)
    shapes[EMBEDDING] = (sizes.vocabulary, llm.width)
    for norm in _norms(llm.depth):
        shapes[f"{LLM}.{norm}.weight"] = (llm.width,)
    for norm in _norms(expert.depth):
        shapes |= _linear(f"{EXPERT}.{norm}.dense", 3 * expert.width, expert.width)
    shapes |= _linear("action_in_proj", expert.width, sizes.action_dim)
    shapes |= _linear("action_out_proj", sizes.action_dim, expert.width)
    times = ("time_mlp_in", "time_mlp_out")
    for name in (*times, *(f"target_{name}" for name in times if sizes.target_time)):
        shapes |= _linear(name, expert.width, expert.width)
    return shapes


def neighbours(name: str) -> tuple[str, ...]:
    """Parameters of the layers that read the same input as this one's, itself included, in order.

    Empty for a parameter of any other layer.
    """
    layer, _, kind = name.rpartition(".")
    parent, _, own = layer.rpartition(".")
    group = next((group for group in READ_ALIKE if own in group), ())
    return tuple(f"{parent}.{other}.{kind}" for other in group)


def find_parameters(
    held: Mapping[str, StoredTensor], sizes: PolicySizes
) -> dict[str, StoredTensor]:
    """Where each parameter lies in a file, which may be openpi's or LeRobot's.

    Raises:
        ConfigError: A tensor is missing, unexpected or of another shape; the message lists them.
    """
    plain = _without_prefix(held)
    pi0 = sorted(name for name in plain if name.startswith(PI0_ONLY))
    if pi0:
        raise ConfigError(f"this is a pi0 and no pi0.5: it holds {_listed(pi0)}")
    if EMBEDDING not in plain and LLM_HEAD in plain:  # of tied tensors, a file holds one
        plain[EMBEDDING] = plain[LLM_HEAD]
    shapes = parameter_shapes(sizes)
    used = {name: stored.shape for name, stored in plain.items() if name not in UNUSED}
    faults = misfits(shapes, used)
    found = [f"{what}: {_listed(names)}" for what, names in faults.items() if names]
    if found:
        raise ConfigError(f"its tensors are not those of a pi0.5 of its sizes; {'; '.join(found)}")
    return {name: plain[name] for name in shapes}


def misfits(expected: Mapping[str, Shape], held: Mapping[str, Shape]) -> dict[str, list[str]]:
    """What keeps tensors from being those expected: kind of fault → names, in order."""
    return {
        "missing": sorted(set(expected) - set(held)),
        "unexpected": sorted(set(held) - set(expected)),
        "of another shape": sorted(
            f"{name} is {list(held[name])} and not {list(expected[name])}"
            for name in set(expected) & set(held)
            if held[name] != expected[name]
        ),
    }


def is_kept_float32(name: str) -> bool:
    """Whether a parameter stays float32 where the others are bfloat16."""
    return any(part in name for part in KEPT_FLOAT32)


def _linear(name: str, out_features: int, in_features: int) -> dict[str, Shape]:
    return {f"{name}.weight": (out_features, in_features), f"{name}.bias": (out_features,)}


def _norms(depth: int) -> list[str]:
    kinds = ("input_layernorm", "post_attention_layernorm")
    return [f"layers.{i}.{kind}" for i in range(depth) for kind in kinds] + ["norm"]


def _without_prefix(held: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    return {name.removeprefix(LEROBOT_PREFIX): stored for name, stored in held.items()}


def _listed(names: Collection[str]) -> str:
    first = ", ".join(list(names)[:LISTED])
    return first if len(names) <= LISTED else f"{first} and {len(names) - LISTED} more"
