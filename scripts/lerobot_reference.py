"""LeRobot's pi0.5 and what stands around it, for `check_lerobot_parity.py`; needs LeRobot."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sentencepiece
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.pi05 import modeling_pi05
from lerobot.policies.pi05.configuration_pi05 import PI05Config
from lerobot.policies.pi05.processor_pi05 import make_pi05_pre_post_processors
from lerobot.processor import tokenizer_processor
from lerobot.processor.env_processor import LiberoProcessorStep
from torch import Tensor, nn

from duqsweep.checkpoint.sizes import PolicySizes

CAMERA_PX = 256


def build_reference(sizes: PolicySizes) -> modeling_pi05.PI05Policy:
    """LeRobot's policy of these sizes, every parameter random."""
    stacks = {"gemma_2b": sizes.llm, "gemma_300m": sizes.expert}

    def config_of(variant: str) -> modeling_pi05.GemmaConfig:
        stack = stacks[variant]
        return modeling_pi05.GemmaConfig(
            width=stack.width,
            depth=stack.depth,
            mlp_dim=stack.mlp,
            num_heads=stack.heads,
            num_kv_heads=stack.kv_heads,
            head_dim=stack.head_dim,
        )

    modeling_pi05.get_gemma_config = config_of
    picture = PolicyFeature(FeatureType.VISUAL, (3, CAMERA_PX, CAMERA_PX))
    config = PI05Config(
        dtype="float32",
        chunk_size=sizes.horizon,
        n_action_steps=sizes.horizon,
        device="cpu",
        input_features={
            "observation.images.image": picture,
            "observation.images.image2": picture,
            "observation.state": PolicyFeature(FeatureType.STATE, (8,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (7,))},
        empty_cameras=1,
    )
    reference = modeling_pi05.PI05Policy(config).eval()
    randomise(reference)
    return reference


@torch.no_grad()
def randomise(module: nn.Module) -> None:
    """Give every parameter a part in the result; LeRobot starts norms and AdaRMS at zero."""
    for name, value in module.named_parameters():
        if value.ndim == 1:
            value.normal_(std=0.2)
        elif "embed_tokens" in name or "lm_head" in name:
            value.normal_(std=value.shape[1] ** -0.5)
        else:
            value.normal_(std=value[0].numel() ** -0.5)


def build_processors(config: PI05Config, tokenizer: Path) -> tuple[Any, Any]:
    """What LeRobot does before and after the network, with random statistics."""
    stats = {
        "observation.state": {"q01": -torch.rand(8) - 0.3, "q99": torch.rand(8) + 0.3},
        "action": {"q01": -torch.rand(7) / 5, "q99": torch.rand(7) / 5},
    }
    words = SimpleNamespace(from_pretrained=lambda _: Tokenizer(tokenizer))
    tokenizer_processor.AutoTokenizer = words  # the real one would be downloaded
    return make_pi05_pre_post_processors(config, stats)


class Tokenizer:
    """A sentencepiece model behind as much of transformers' interface as LeRobot calls."""

    def __init__(self, path: Path) -> None:
        self.model = sentencepiece.SentencePieceProcessor(model_file=str(path))

    def __call__(self, texts: list[str], max_length: int, **_: Any) -> dict[str, Tensor]:
        """Ids and mask, each (texts, max_length)."""
        ids = torch.zeros(len(texts), max_length, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for i, text in enumerate(texts):
            found = self.model.encode(text, add_bos=True)
            ids[i, : len(found)], mask[i, : len(found)] = torch.tensor(found), 1
        return {"input_ids": ids, "attention_mask": mask}


def reference_actions(
    module: nn.Module, images: Tensor, prompt: Tensor, noise: Tensor, sizes: PolicySizes, steps: int
) -> Tensor:
    """Actions as LeRobot is called on LIBERO: a third, masked image and a padded prompt."""
    absent = sizes.cameras - images.shape[1]
    shown = [*images.unbind(1), *[-torch.ones_like(images[:, 0])] * absent]
    masks = [torch.tensor([i < images.shape[1]]) for i in range(sizes.cameras)]
    tokens = torch.zeros(1, sizes.prompt_tokens, dtype=torch.int64)
    tokens[:, : prompt.shape[1]] = prompt
    token_masks = torch.arange(sizes.prompt_tokens)[None] < prompt.shape[1]
    return module.sample_actions(shown, masks, tokens, token_masks, noise=noise, num_steps=steps)


def seen_by_lerobot(raw: dict[str, Any]) -> dict[str, Any]:
    """The same through LeRobot's own step for LIBERO."""
    planes = {
        camera: torch.from_numpy(raw[camera].copy()).permute(2, 0, 1)[None].float() / 255
        for camera in ("agentview", "wrist")
    }
    rows = {key: torch.from_numpy(raw[key])[None].float() for key in ("pos", "quat", "fingers")}
    seen = LiberoProcessorStep().observation(
        {
            "observation.images.image": planes["agentview"],
            "observation.images.image2": planes["wrist"],
            "observation.robot_state": {
                "eef": {"pos": rows["pos"], "quat": rows["quat"]},
                "gripper": {"qpos": rows["fingers"]},
            },
        }
    )
    return {**seen, "task": [raw["task"]]}
