"""Loads policies, and writes checkpoints of embedded ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from duqsweep.checkpoint.distilled import check_steps, distilled_steps
from duqsweep.checkpoint.embedded_config import STATE_VALUES, EmbeddedConfig, read_embedded
from duqsweep.checkpoint.io_spec import ACTIONS
from duqsweep.checkpoint.locate import WEIGHTS, check_checkpoint, checkpoint_dir
from duqsweep.checkpoint.parameters import Shape, misfits
from duqsweep.checkpoint.pi05_config import CONFIG_JSON
from duqsweep.checkpoint.pi05_folder import read_folder
from duqsweep.checkpoint.sizes import PolicySizes, sizes_of
from duqsweep.codec import encode
from duqsweep.errors import EvaluationError
from duqsweep.files import write_json
from duqsweep.policy.pi05 import Pi05
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.policy.pi05_preprocess import Pi05Preprocessing
from duqsweep.policy.preprocess import EmbeddedPreprocessing
from duqsweep.policy.weight_loading import (
    bytes_free,
    bytes_needed,
    check_memory,
    parameter_dtype,
    read_tensors,
    weight_dtype,
)
from duqsweep.spec import PolicySpec, Schedule


def load_policy(spec: PolicySpec, device: str) -> Pi05Policy:
    """The policy with its weights, ready to act.

    In float32 on a CPU; on a GPU in bfloat16, except for parameters that openpi keeps in float32.

    Args:
        spec: Which policy, and its number of steps.
        device: "cpu", "cuda" or "cuda:N".

    Raises:
        ConfigError: The checkpoint is missing, or not one of a pi0.5.
        EvaluationError: The checkpoint does not fit the policy; the message lists what is missing
            or unexpected. Or a weight is not finite. Or there is too little memory; the message
            says how much is needed.
    """
    if spec.name != "embedded":
        return load_pi05(spec, device, weight_dtype(device))
    check_checkpoint(spec)
    folder = checkpoint_dir(spec)
    config = read_embedded(folder / CONFIG_JSON)
    module = _without_values(config.sizes)
    _load_weights(module, folder / WEIGHTS, device)
    return Pi05Policy(module.eval(), EmbeddedPreprocessing(config), *_called(spec))


def load_pi05(spec: PolicySpec, device: str, dtype: torch.dtype) -> Pi05Policy:
    """Load a pi0.5 from a checkpoint folder of openpi or LeRobot; errors as in `load_policy`."""
    folder = read_folder(checkpoint_dir(spec), spec.tokenizer)
    check_steps(spec, distilled_steps(spec))
    needed = bytes_needed(folder.parameters, dtype)
    check_memory(folder.weights, needed, bytes_free(device), device)
    sizes = folder.io_spec.sizes
    module = _without_values(sizes)
    tensors = read_tensors(folder.weights, folder.parameters, device, dtype)
    module.load_state_dict(tensors, assign=True)
    preprocessing = Pi05Preprocessing(folder.io_spec, folder.tokenizer)
    return Pi05Policy(module.eval().requires_grad_(False), preprocessing, *_called(spec))


def _called(spec: PolicySpec) -> tuple[int, Schedule, bool]:
    return spec.num_steps, spec.times, spec.reuse_images


def save_checkpoint(folder: Path, module: nn.Module, config: EmbeddedConfig) -> None:
    """Write a checkpoint for `load_policy`; the folder is created if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.float().contiguous() for name, value in module.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    write_json(folder / CONFIG_JSON, encode(config))


def save_random(
    folder: Path, instructions: Iterable[str], sizes: PolicySizes | None = None, seed: int = 0
) -> None:
    """Write an embedded policy with random weights; its words are those of `instructions`."""
    words = sorted({word for text in instructions for word in text.lower().split()})
    sizes = sizes or sizes_of("embedded")
    config = EmbeddedConfig(
        sizes=sizes,
        words=("", *words),
        text_tokens=16,
        state_low=(-1.0,) * STATE_VALUES,
        state_high=(1.0,) * STATE_VALUES,
        action_mean=(0.0,) * ACTIONS,
        action_std=(0.5,) * ACTIONS,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_checkpoint(folder, Pi05(sizes), config)


class _SkipInit(TorchFunctionMode):
    """Skips the functions of torch.nn.init.

    On the meta device they change nothing, yet `normal_` imports torch._dynamo there, which takes
    as long as importing torch.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`, unless it fills a parameter."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"]
        return func(*args, **kwargs)


def _without_values(sizes: PolicySizes) -> Pi05:
    """The network on the meta device: shapes without memory, until tensors are assigned."""
    with torch.device("meta"), _SkipInit():
        return Pi05(sizes)


def _load_weights(module: nn.Module, path: Path, device: str) -> None:
    try:
        tensors = load_file(path, device=device)
    except SafetensorError as error:
        raise EvaluationError(f"{path} is not a safetensors file: {error}") from error
    faults = misfits(_shapes(module.state_dict()), _shapes(tensors))
    broken = (name for name, value in tensors.items() if not value.isfinite().all())
    faults["not finite"] = sorted(broken)
    found = [f"{what}: {', '.join(names)}" for what, names in faults.items() if names]
    if found:
        raise EvaluationError(f"{path} does not fit the policy; {'; '.join(found)}")
    dtype = weight_dtype(device)
    typed = {name: value.to(parameter_dtype(name, dtype)) for name, value in tensors.items()}
    module.load_state_dict(typed, assign=True)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
