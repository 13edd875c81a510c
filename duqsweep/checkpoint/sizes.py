"""Widths, depths and layer names of each policy, known without torch."""

from __future__ import annotations

from dataclasses import dataclass

from duqsweep.errors import ConfigError, SpecError

VISION = "paligemma_with_expert.paligemma.model.vision_tower.vision_model"
LLM = "paligemma_with_expert.paligemma.model.language_model"
EXPERT = "paligemma_with_expert.gemma_expert.model"


# Beyond what any policy has: a damaged file must not ask for a million layers.
DEEPEST, WIDEST = 1000, 10_000_000


def _check_range(record: object) -> None:
    for name, value in vars(record).items():
        most = DEEPEST if name == "depth" else WIDEST
        if type(value) is int and not 1 <= value <= most:
            raise SpecError(
                f"{name} must be at least 1 and at most {most}, got {str(value)[:20]} in "
                f"{type(record).__name__}"
            )


@dataclass(frozen=True)
class StackSizes:
    """A stack of Gemma layers."""

    width: int
    depth: int
    mlp: int
    heads: int
    kv_heads: int
    head_dim: int

    def __post_init__(self) -> None:
        _check_range(self)
        if self.heads % self.kv_heads or self.head_dim % 2:
            raise SpecError(f"heads must be a multiple of kv_heads and head_dim even, got {self}")


@dataclass(frozen=True)
class VisionSizes:
    """A SigLIP image encoder."""

    width: int
    depth: int
    mlp: int
    heads: int
    patch_px: int
    image_px: int
    merge: int = 1  # merge x merge neighbouring patches become one token; pi0.5 merges none

    def __post_init__(self) -> None:
        _check_range(self)
        if self.width % self.heads:
            raise SpecError(f"heads must divide width, got {self}")
        if self.patches_per_side % self.merge:
            raise SpecError(f"merge must divide the {self.patches_per_side} patches of a side")

    @property
    def patches_per_side(self) -> int:
        """Patches along one side; pixels that do not fill a patch are left out, as SigLIP does."""
        return self.image_px // self.patch_px

    @property
    def tokens(self) -> int:
        """Tokens that one image adds to the prefix."""
        return (self.patches_per_side // self.merge) ** 2


@dataclass(frozen=True)
class PolicySizes:
    """A whole pi0.5: image encoder, language model and action expert."""

    vision: VisionSizes
    llm: StackSizes
    expert: StackSizes
    horizon: int  # actions per call
    action_dim: int  # width of an action inside the flow, padding included
    vocabulary: int
    prompt_tokens: int  # at most; instruction and discretised state
    cameras: int
    target_time: bool = False  # a distilled student's expert also knows where a step ends

    def __post_init__(self) -> None:
        _check_range(self)
        shared = ("depth", "heads", "kv_heads", "head_dim")
        for what in shared:
            if getattr(self.llm, what) != getattr(self.expert, what):
                raise SpecError(f"expert and llm must share {list(shared)}: they differ in {what}")


_POLICIES = {
    "embedded": PolicySizes(
        vision=VisionSizes(width=128, depth=2, mlp=256, heads=4, patch_px=8, image_px=64, merge=2),
        llm=StackSizes(width=128, depth=6, mlp=256, heads=4, kv_heads=2, head_dim=32),
        expert=StackSizes(width=128, depth=6, mlp=256, heads=4, kv_heads=2, head_dim=32),
        horizon=10,
        action_dim=7,
        vocabulary=64 + 11 * 256,  # words, then 256 bins for each of 11 state values
        prompt_tokens=40,
        cameras=2,
    ),
    # openpi: gemma_2b and gemma_300m of gemma.py, So400m/14 of siglip.py, Pi0Config.
    "pi05_libero": PolicySizes(
        vision=VisionSizes(width=1152, depth=27, mlp=4304, heads=16, patch_px=14, image_px=224),
        llm=StackSizes(width=2048, depth=18, mlp=16384, heads=8, kv_heads=1, head_dim=256),
        expert=StackSizes(width=1024, depth=18, mlp=4096, heads=8, kv_heads=1, head_dim=256),
        horizon=10,
        action_dim=32,
        vocabulary=257152,
        prompt_tokens=200,
        cameras=3,
    ),
}


def sizes_of(policy_name: str) -> PolicySizes:
    """The sizes of a policy by its name.

    Raises:
        ConfigError: There is no such policy.
    """
    if policy_name not in _POLICIES:
        raise ConfigError(f"policy must be one of {sorted(_POLICIES)}, got {policy_name!r}")
    return _POLICIES[policy_name]


def rows_a_pass(sizes: PolicySizes, pictures: int, prompt_tokens: int) -> dict[str, int]:
    """Rows of input in one pass of each part, batch 1, by the root of its layers' names."""
    patches = sizes.vision.patches_per_side**2
    return {
        VISION: pictures * patches,
        LLM: pictures * sizes.vision.tokens + prompt_tokens,
        EXPERT: sizes.horizon,
    }


def linear_layers(sizes: PolicySizes) -> dict[str, tuple[int, int]]:
    """Every linear layer that can be quantized, in forward order.

    Returns:
        Full dotted module name → (out_features, in_features): attention and MLP of image encoder,
        language model and action expert.
    """
    layers: dict[str, tuple[int, int]] = {}
    width, mlp = sizes.vision.width, sizes.vision.mlp
    for i in range(sizes.vision.depth):
        prefix = f"{VISION}.encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            layers[f"{prefix}.self_attn.{name}"] = (width, width)
        layers[f"{prefix}.mlp.fc1"] = (mlp, width)
        layers[f"{prefix}.mlp.fc2"] = (width, mlp)
    for root, stack in ((LLM, sizes.llm), (EXPERT, sizes.expert)):
        for i in range(stack.depth):
            for name, shape in _gemma_shapes(stack).items():
                layers[f"{root}.layers.{i}.{name}"] = shape
    return layers


def _gemma_shapes(stack: StackSizes) -> dict[str, tuple[int, int]]:
    q_width, kv_width = stack.heads * stack.head_dim, stack.kv_heads * stack.head_dim
    return {
        "self_attn.q_proj": (q_width, stack.width),
        "self_attn.k_proj": (kv_width, stack.width),
        "self_attn.v_proj": (kv_width, stack.width),
        "self_attn.o_proj": (stack.width, q_width),
        "mlp.gate_proj": (stack.mlp, stack.width),
        "mlp.up_proj": (stack.mlp, stack.width),
        "mlp.down_proj": (stack.width, stack.mlp),
    }
