"""The policy under test at one shape, with what its forms share: inputs and quantized layers."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from duqsweep.checkpoint.sizes import linear_layers, sizes_of
from duqsweep.control.explain.cost import CAMERAS_SEEN, PROMPT_TOKENS
from duqsweep.policy.pi05 import Pi05, PrefixCache
from duqsweep.quant.calibrate import calibrate
from duqsweep.quant.freeze import freeze
from duqsweep.quant.select import select_layers
from duqsweep.spec import QuantSpec


class Bench:
    """Full-size weights are random: bf16 on a GPU, fp32 on a CPU. Batch 1, no padded tokens."""

    def __init__(
        self,
        policy: str,
        device: str,
        num_steps: int,
        horizon: int | None,
        cameras: int = CAMERAS_SEEN,
        prompt_tokens: int | None = None,
    ) -> None:
        """Build the policy.

        Args:
            policy: Its name.
            device: "cpu" or "cuda".
            num_steps: Denoising steps.
            horizon: Actions per call; None: the policy's own.
            cameras: Images per call, at most the policy's.
            prompt_tokens: Of instruction and state, at most the policy's; None: LIBERO's longest.
        """
        self.policy, self.device, self.num_steps = policy, device, num_steps
        self.any_length = False  # compile the prefix once for all lengths, as a policy does
        self.sizes = sizes_of(policy)
        self.dtype = torch.bfloat16 if device == "cuda" else torch.float32
        torch.manual_seed(0)
        torch.set_default_dtype(self.dtype)
        with torch.device(device):
            self.module = Pi05(self.sizes).eval()
        torch.set_default_dtype(torch.float32)
        px, most = self.sizes.vision.image_px, self.sizes.cameras
        every = torch.rand(1, most, 3, px, px, device=device) * 2 - 1
        self.every_image = every.to(self.dtype)
        words = (1, self.sizes.prompt_tokens)
        self.longest_prompt = torch.randint(self.sizes.vocabulary, words, device=device)
        self.modulations = self.module.modulations(num_steps).unbind(1)
        self._frozen: dict[QuantSpec, Pi05] = {}
        tokens = PROMPT_TOKENS[policy] if prompt_tokens is None else prompt_tokens
        self._set_shape(horizon or self.sizes.horizon, cameras, tokens)

    def at(
        self, horizon: int, cameras: int | None = None, prompt_tokens: int | None = None
    ) -> Bench:
        """The same policy at another shape; weights and quantized layers are shared."""
        other = copy.copy(self)
        seen, read = self.reads
        other._set_shape(
            horizon,
            seen if cameras is None else cameras,
            read if prompt_tokens is None else prompt_tokens,
        )
        return other

    @property
    def horizon(self) -> int:
        """Actions per call."""
        return self.sizes.horizon

    @property
    def cameras(self) -> int:
        """Images per call."""
        return self.images.shape[1]

    @property
    def reads(self) -> tuple[int, int]:
        """Images and prompt tokens per call."""
        return self.cameras, self.prompt.shape[1]

    @cached_property
    def cache(self) -> PrefixCache:
        """The unquantized prefix, which the expert's forms read."""
        return self.prefix(self.module)

    def prefix(self, module: Pi05) -> PrefixCache:
        """Image encoder and language model."""
        return module.prefix(module.encode_images(self.images), self.prompt)

    def follow(self, module: Pi05, cache: PrefixCache) -> Tensor:
        """All denoising steps, one velocity after the other: (horizon, action_dim)."""
        actions = self.noise[None]
        for modulation in self.modulations:
            velocity = module.velocity(actions.to(self.dtype), cache, modulation[:, None])
            actions = actions - velocity.float() / self.num_steps
        return actions[0]

    def frozen(self, quant: QuantSpec | None) -> Pi05:
        """The policy with quantized layers, cached; None: unquantized."""
        if quant is None:
            return self.module
        if quant not in self._frozen:
            self._frozen[quant] = self._freeze(quant)
        module = self.copy_of(self._frozen[quant])
        module.sizes = self.sizes
        return module

    def copy_of(self, module: Pi05) -> Pi05:
        """New modules on the same tensors, which may be compiled or quantized."""
        tensors = [*module.parameters(), *module.buffers()]
        return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})

    def forget(self) -> None:
        """Release the quantized layers."""
        self._frozen.clear()

    def sync(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _set_shape(self, horizon: int, cameras: int, prompt_tokens: int) -> None:
        for name, value, most in (
            ("cameras", cameras, self.sizes.cameras),
            ("prompt_tokens", prompt_tokens, self.sizes.prompt_tokens),
        ):
            if not 1 <= value <= most:
                raise ValueError(f"{name} must be 1 to {most}, got {value}")
        self.sizes = replace(self.sizes, horizon=horizon)
        self.images = self.every_image[:, :cameras]
        self.prompt = self.longest_prompt[:, :prompt_tokens]
        self.__dict__.pop("cache", None)  # that of another shape
        self.references: dict[tuple[str, QuantSpec | None], Tensor] = {}  # by scope and settings
        self.module = self.copy_of(self.module)
        self.module.sizes = self.sizes
        torch.manual_seed(horizon)
        self.noise = torch.randn(horizon, self.sizes.action_dim, device=self.device)

    def _freeze(self, quant: QuantSpec) -> Pi05:
        module = self.copy_of(self.module)
        bits = select_layers(quant, linear_layers(self.sizes))

        def run() -> None:
            self.follow(module, self.prefix(module))

        stats = calibrate(module, bits, quant, run)
        freeze(module, bits, quant, stats, None, "random")
        return module
