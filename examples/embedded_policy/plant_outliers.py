"""Give a trained policy the activation outliers of large ones, without changing what it computes.

    python examples/embedded_policy/plant_outliers.py --data DEMOS --checkpoint IN --out OUT

Policies of billions of parameters have input channels that are a hundred times larger than the
median one; a network of three million has none, so that rotations would have nothing to do in it.
Each outlier made here is a channel multiplied by a power of two where it is produced and divided by
the same where it is consumed, in exact arithmetic without effect.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from dataset import make_frames, read_episodes
from network import predict
from torch import Tensor, nn

from duqsweep.policy.checkpoint import load_policy, save_checkpoint
from duqsweep.policy.gemma import AdaptiveRmsNorm, GemmaAttention, RmsNorm
from duqsweep.policy.pi05 import Pi05
from duqsweep.policy.preprocess import scale_pixels
from duqsweep.spec import PolicySpec

FRAMES = 96  # that the channels' sizes are read from


@dataclass(frozen=True)
class Plan:
    """How many channels of each kind become outliers, and how large: times the median channel."""

    down_channels: int = 3
    down_ratio: float = 100.0
    norm_channels: int = 2
    norm_ratio: float = 30.0
    value_channels: int = 1  # of each key/value head
    value_ratio: float = 20.0


def plant(module: Pi05, run: Callable[[], None], plan: Plan) -> None:
    """Rescale channels of language model and expert in place.

    Args:
        module: The network, in float32.
        run: Makes forwards that the channels' sizes are read from.
        plan: What to plant.
    """
    largest = _channel_maxima(module, run)
    stacks = (module.language_model, module.expert)
    for stack in stacks:
        for layer in stack.layers:
            attention, mlp = layer.self_attn, layer.mlp
            for norm, consumers in (
                (layer.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
                (layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj)),
            ):
                factors = _factors(largest[consumers[0]], plan.norm_channels, plan.norm_ratio)
                scale_norm(norm, consumers, factors)
            factors = _factors(largest[mlp.down_proj], plan.down_channels, plan.down_ratio)
            scale_between(mlp.up_proj, mlp.down_proj, factors)
    for llm_layer, expert_layer in zip(*(stack.layers for stack in stacks), strict=True):
        attentions = (llm_layer.self_attn, expert_layer.self_attn)
        scale_values(attentions, _value_factors(attentions, largest, plan))


def scale_norm(norm: nn.Module, consumers: tuple[nn.Linear, ...], factors: Tensor) -> None:
    """Multiply a norm's output channels by `factors` (width,), and divide what reads them."""
    with torch.no_grad():
        if isinstance(norm, RmsNorm):
            norm.weight.copy_((1.0 + norm.weight) * factors - 1.0)
        elif isinstance(norm, AdaptiveRmsNorm):
            width = norm.dense.in_features
            scale, shift = slice(0, width), slice(width, 2 * width)
            norm.dense.weight[scale] *= factors[:, None]
            norm.dense.bias[scale] = (1.0 + norm.dense.bias[scale]) * factors - 1.0
            norm.dense.weight[shift] *= factors[:, None]
            norm.dense.bias[shift] *= factors
        else:
            raise TypeError(f"no rule for {type(norm).__name__}")
        for consumer in consumers:
            consumer.weight /= factors


def scale_between(producer: nn.Linear, consumer: nn.Linear, factors: Tensor) -> None:
    """Multiply the rows of `producer` and divide the columns of `consumer`."""
    with torch.no_grad():
        producer.weight *= factors[:, None]
        consumer.weight /= factors


def scale_values(attentions: tuple[GemmaAttention, ...], factors: Tensor) -> None:
    """The same for values and output projections; the expert reads the prefix's values too.

    Args:
        attentions: Of one depth.
        factors: (kv_heads, head_dim); all query heads of a key/value head share its channels.
    """
    with torch.no_grad():
        for attention in attentions:
            groups = attention.o_proj.in_features // factors.numel()
            attention.v_proj.weight *= factors.reshape(-1, 1)
            attention.o_proj.weight /= factors.repeat_interleave(groups, dim=0).reshape(-1)


def _factors(maxima: Tensor, channels: int, ratio: float) -> Tensor:
    """(width,) powers of two: the largest channels grow to about `ratio` times the median."""
    factors = torch.ones_like(maxima)
    chosen = maxima.topk(channels).indices
    wanted = ratio * maxima.median() / maxima[chosen]
    factors[chosen] = torch.exp2(wanted.log2().round().clamp_min(0))
    return factors


def _value_factors(
    attentions: tuple[GemmaAttention, ...], largest: dict[nn.Module, Tensor], plan: Plan
) -> Tensor:
    heads, head_dim = attentions[0].kv_heads, attentions[0].head_dim
    maxima = torch.stack([largest[attention.o_proj] for attention in attentions]).amax(0)
    by_head = maxima.view(heads, -1, head_dim).amax(1)
    return torch.stack([_factors(row, plan.value_channels, plan.value_ratio) for row in by_head])


def _channel_maxima(module: Pi05, run: Callable[[], None]) -> dict[nn.Module, Tensor]:
    """Largest |input| of every channel of every linear layer."""
    largest: dict[nn.Module, Tensor] = {}

    def watch(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        value = inputs[0].detach().abs().flatten(0, -2).amax(0)
        largest[layer] = torch.maximum(largest.get(layer, value), value)

    linears = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_pre_hook(watch) for layer in linears]
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    return largest


def main() -> None:
    """Command line: read a checkpoint, plant, check, write, and print the outliers' sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    policy = load_policy(PolicySpec("embedded", str(args.checkpoint)), "cpu")
    module = policy.network
    frames = make_frames(read_episodes(args.data, limit=60), policy.config, "cpu")
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(frames.pixels), generator=generator)[:FRAMES]
    images, prompt = scale_pixels(frames.pixels[chosen]), frames.prompt[chosen]
    noise = torch.randn(len(chosen), *frames.chunk.shape[1:], generator=generator)

    def run() -> Tensor:
        return predict(module, images, prompt, noise, 10)

    before = run()
    plant(module, run, Plan())
    change = (run() - before).abs().max().item()
    sizes: dict[str, list[float]] = {}
    maxima = _channel_maxima(module, run)
    for name, layer in module.named_modules():
        if layer in maxima and ("layers" in name and "vision" not in name):
            kind = f"{'dit' if 'expert.model' in name else 'llm'} {name.split('.')[-1]}"
            ratio = maxima[layer].max() / maxima[layer].median()
            sizes.setdefault(kind, []).append(round(ratio.item(), 1))
    save_checkpoint(args.out, module, policy.config)
    print(json.dumps({"largest_change": change, "largest_over_median": sizes}))
    if change > 1e-5:
        raise SystemExit(f"the policy changed by {change}")


if __name__ == "__main__":
    main()
