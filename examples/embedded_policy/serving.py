"""Policies under several settings that answer many simulators at once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from duqsweep.checkpoint.io_spec import ACTIONS, CAMERAS
from duqsweep.checkpoint.sizes import linear_layers
from duqsweep.policy.load import load_policy
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.policy.preprocess import camera_pictures, denormalise_actions, fit_pixels, prompt
from duqsweep.quant.calibrate import calibrate
from duqsweep.quant.freeze import freeze
from duqsweep.quant.select import select_layers
from duqsweep.seams import Environment, Observation
from duqsweep.spec import FULL_PRECISION, LayerRule, PolicySpec, QuantSpec, SuiteSpec
from duqsweep.worker.fidelity import action_error
from duqsweep.worker.noise import flow_noise
from duqsweep.worker.observations import collect
from duqsweep.worker.simulator_pool import SimulatorPool

LAYERS = {"dit": r"gemma_expert", "llm": r"language_model", "all": r"gemma_expert|language_model"}
ROTATIONS = ("hadamard", "svd", "none")
CALIBRATION_SEED = 20_000


@dataclass(frozen=True)
class Setting:
    """One configuration, parsed from its name."""

    name: str
    weight_bits: int = FULL_PRECISION
    act_bits: int = 8
    layers: str = "all"
    rotation: str = "hadamard"
    num_steps: int = 10
    block_size: int = 16

    @staticmethod
    def parse(name: str) -> Setting:
        """Read words joined by dashes, e.g. `w3-dit-a8-none-s4-b32`; `fp` changes nothing."""
        values: dict[str, object] = {}
        numbers = {"w": "weight_bits", "a": "act_bits", "s": "num_steps", "b": "block_size"}
        for word in name.split("-"):
            if word in LAYERS:
                values["layers"] = word
            elif word in ROTATIONS:
                values["rotation"] = word
            elif word != "fp":
                values[numbers[word[0]]] = int(word[1:])
        return Setting(name, **values)

    @property
    def quant(self) -> QuantSpec:
        """As a trial would say it."""
        if self.weight_bits == FULL_PRECISION:
            return QuantSpec()
        rule = LayerRule(LAYERS[self.layers], self.weight_bits, self.act_bits)
        return QuantSpec(
            rules=(rule,),
            rotation=self.rotation,
            block_size=self.block_size,
        )


class Server:
    """Answers requests under any setting; each setting's policy is made when first asked for."""

    def __init__(self, checkpoint: Path, device: str) -> None:
        self.reference = load_policy(PolicySpec("embedded", str(checkpoint)), "cpu")
        self.device = torch.device(device)
        self.observations: list[Observation] = []
        self._policies: dict[Setting, Pi05Policy] = {}
        self._errors: dict[Setting, float] = {}

    def collect(self, environment: Environment, suite: SuiteSpec) -> None:
        """See what calibration and action error are measured on."""
        self.observations = collect(
            self.reference, suite, SimulatorPool.in_process(lambda: environment)
        )

    def action_error(self, setting: Setting) -> float:
        """Normalised action RMSE to full precision and 10 steps, same noise."""
        self._policy(setting)
        return self._errors[setting]

    @torch.no_grad()
    def answer(
        self, setting: Setting, requests: Sequence[tuple[Observation, NDArray[np.float32]]]
    ) -> list[NDArray[np.float64]]:
        """Action chunks for (observation, noise) pairs, computed as one batch."""
        policy = self._policy(setting)
        network, config = policy.module, policy.preprocessing.config
        px = config.sizes.vision.image_px
        pictures = np.stack([camera_pictures(seen, CAMERAS) for seen, _ in requests])
        pixels = fit_pixels(torch.from_numpy(pictures).to(self.device), px)
        words = torch.from_numpy(np.stack([prompt(seen, config) for seen, _ in requests]))
        actions = torch.from_numpy(np.stack([noise for _, noise in requests])).to(self.device)
        cache = network.prefix(network.encode_images(pixels), words.to(self.device))
        for modulation in policy.call.modulations:
            actions = actions - network.velocity(actions, cache, modulation) / policy.num_steps
        return [denormalise_actions(a, config) for a in actions[:, :, :ACTIONS].cpu().numpy()]

    def _policy(self, setting: Setting) -> Pi05Policy:
        if setting not in self._policies:
            policy = self.reference.copy(setting.num_steps)
            self._quantize(policy, setting.quant)
            self._errors[setting] = (
                action_error(policy, self.reference, self.observations[1::2], CALIBRATION_SEED + 1)
                if self.observations
                else 0.0
            )
            # A copy of its own: `to` would move the tensors that it shares with the reference.
            moved = copy.deepcopy(policy.module).to(self.device)
            self._policies[setting] = Pi05Policy(moved, policy.preprocessing, setting.num_steps)
        return self._policies[setting]

    def _quantize(self, policy: Pi05Policy, quant: QuantSpec) -> None:
        if not quant.rules:
            return
        bits = select_layers(quant, linear_layers(policy.preprocessing.sizes))

        def run() -> None:
            for i, observation in enumerate(self.observations[::2]):
                noise = flow_noise((CALIBRATION_SEED, i), policy.horizon, policy.action_dim)
                policy.act(observation, noise)

        stats = calibrate(policy.module, bits, quant, run)
        freeze(policy.module, bits, quant, stats, None, "")
