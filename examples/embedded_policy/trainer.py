"""One network in training: optimiser, average of the weights, and the update as a CUDA graph."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from dataset import Frames
from network import augment, embed_by_product, flow_loss, jitter_bins, keep_residuals_wide
from torch import nn

from duqsweep.checkpoint.embedded_config import EmbeddedConfig
from duqsweep.policy.pi05 import Pi05

PEAK_LR, WARM_UP_STEPS, WEIGHT_DECAY, CLIP = 1e-3, 500, 0.05, 1.0
EMA_DECAY = 0.9995
DRAWS = 4  # of noise and time for each prefix


class Trainer:
    """One network, its optimiser and its average; `step` is one update with nothing to pass in."""

    def __init__(self, module: Pi05, frames: Frames, config: EmbeddedConfig, batch: int) -> None:
        self.module, self.frames, self.config, self.batch = module, frames, config, batch
        self.device = frames.pixels.device
        self.parameters = list(module.parameters())
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.average_gain = torch.zeros((), device=self.device)
        self.lr = torch.zeros((), device=self.device)
        self.loss = torch.zeros((), device=self.device)
        cuda = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            self._groups(), lr=self.lr if cuda else 0.0, betas=(0.9, 0.95), capturable=cuda
        )

    def _groups(self) -> list[dict[str, object]]:
        matrices, rest = [], []
        for name, parameter in self.module.named_parameters():
            decays = parameter.dim() >= 2 and "embed" not in name
            (matrices if decays else rest).append(parameter)
        return [
            {"params": matrices, "weight_decay": WEIGHT_DECAY},
            {"params": rest, "weight_decay": 0.0},
        ]

    def step(self) -> None:
        """One update on a random batch, all of it on the device."""
        frames = self.frames
        index = torch.randint(len(frames.pixels), (self.batch,), device=self.device)
        prompt = jitter_bins(frames.prompt[index], self.config)
        images = augment(frames.pixels[index])
        self.optimizer.zero_grad(set_to_none=False)
        with torch.autocast(
            self.device.type,
            torch.bfloat16,
            enabled=self.device.type == "cuda",
            cache_enabled=False,
        ):
            loss = flow_loss(
                self.module, images, prompt, frames.chunk[index], frames.weight[index], DRAWS
            )
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, CLIP)
        self.optimizer.step()
        self.loss.lerp_(loss.detach(), 0.02)
        difference = torch._foreach_sub(self.parameters, self.average)
        torch._foreach_mul_(difference, self.average_gain)
        torch._foreach_add_(self.average, difference)

    def schedule(self, step: int, progress: float) -> None:
        """Set the learning rate (warm-up, cosine over time) and the average's gain."""
        rate = PEAK_LR * min(1.0, (step + 1) / WARM_UP_STEPS)
        rate *= 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        self.lr.fill_(rate)
        if self.device.type != "cuda":
            for group in self.optimizer.param_groups:
                group["lr"] = rate
        self.average_gain.fill_(1 - min(EMA_DECAY, (1 + step) / (10 + step)))

    def captured(self) -> Callable[[], None]:
        """`step` as one CUDA graph; on a CPU, `step` itself."""
        if self.device.type != "cuda":
            return self.step
        embed_by_product(self.module)
        keep_residuals_wide(self.module)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        return graph.replay

    def averaged(self) -> Pi05:
        """A copy of the network with the averaged weights, on the CPU."""
        names = [name for name, _ in self.module.named_parameters()]
        network = Pi05(self.config.sizes)
        network.load_state_dict(
            {name: value.cpu() for name, value in zip(names, self.average, strict=True)}
        )
        return network.eval()
