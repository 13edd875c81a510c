"""Weights that several threads read in pieces are those of the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pi05_parts import TINY, change_weights, spec
from safetensors.torch import load_file

from duqsweep.checkpoint.parameters import EMBEDDING, is_kept_float32, neighbours
from duqsweep.checkpoint.pi05_folder import WEIGHTS, read_folder
from duqsweep.errors import EvaluationError
from duqsweep.policy import weight_loading
from duqsweep.policy.load import load_policy
from duqsweep.policy.random_pi05 import RandomPi05, write_random
from duqsweep.policy.weight_loading import read_tensors

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    write_random(tmp_path, RandomPi05(TINY, "lerobot", request.param))
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("threads", [1, 3])
def test_tensors_are_those_of_the_file(
    folder: Path, dtype: torch.dtype, device: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_loading, "PIECE_BYTES", 1024)  # most tensors have several pieces
    monkeypatch.setattr(weight_loading, "reader_threads", lambda: threads)
    parameters = read_folder(folder, None).parameters
    found = read_tensors(folder / WEIGHTS, parameters, device, dtype)
    held = {k.removeprefix("model."): v for k, v in load_file(folder / WEIGHTS).items()}
    assert found.keys() == parameters.keys()
    for name, tensor in found.items():
        wanted = torch.float32 if is_kept_float32(name) else dtype
        assert tensor.device.type == device
        assert torch.equal(tensor.cpu(), held[name].to(wanted))
        together = [found[other] for other in neighbours(name)]
        assert len({part.untyped_storage().data_ptr() for part in together}) <= 1


def test_a_file_that_ends_too_soon_is_named(folder: Path) -> None:
    parameters = read_folder(folder, None).parameters
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(EvaluationError, match=r"model.safetensors ends in the middle of "):
        read_tensors(path, parameters, "cpu", torch.float32)


def test_nan_in_any_piece_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_loading, "PIECE_BYTES", 1024)
    write_random(tmp_path, RandomPi05(TINY, "lerobot", torch.float32))
    table = load_file(tmp_path / WEIGHTS)[f"model.{EMBEDDING}"].clone()
    table[-1, -1] = float("nan")
    change_weights(tmp_path, **{f"model.{EMBEDDING}": table})
    with pytest.raises(EvaluationError, match=rf"{EMBEDDING} holds NaN"):
        load_policy(spec(tmp_path), "cpu")
