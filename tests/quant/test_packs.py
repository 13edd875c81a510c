"""A pack's key depends on all that affects the pack, and only that; reading checks it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from quant_parts import LAYERS, outputs, quantized, relative_error
from safetensors.torch import load_file, save_file

from duqsweep.errors import EvaluationError
from duqsweep.quant.packs import pack_key
from duqsweep.spec import LayerRule, QuantSpec

WEIGHT = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
MAXIMA = torch.ones(64)
BASE = QuantSpec()


def key(quant: QuantSpec = BASE, bits: int = 4, maxima: torch.Tensor = MAXIMA) -> str:
    return pack_key("tiny", "layers.0", WEIGHT, bits, quant, maxima)


@pytest.mark.parametrize(
    "change",
    [
        {"rotation": "svd"},
        {"rotation": "greedy"},
        {"block_size": 32},
        {"permutation": "prototype"},
        {"row_rotation": True},
        {"weight_scale": "absmax"},
        {"weight_group_size": 32},
        {"smoothing": 0.5},
    ],
    ids=str,
)
def test_what_shapes_a_pack_changes_its_name(change: dict[str, object]) -> None:
    assert key(dataclasses.replace(BASE, **change)) != key()


@pytest.mark.parametrize(
    "change",
    [
        {"act_scale": "static"},
        {"act_percentile": 99.0},
        {"kernel": "loop"},
        {"rules": (LayerRule("x", 4, 8),)},
    ],
    ids=str,
)
def test_what_does_not_shape_a_pack_leaves_its_name(change: dict[str, object]) -> None:
    assert key(dataclasses.replace(BASE, **change)) == key()


def test_e4m3_changes_the_name_of_rounded_weights_and_the_kernel_that_multiplies_it_shares_it() -> (
    None
):
    simulated = QuantSpec(number_format="e4m3")
    assert key(simulated, 8) == key(QuantSpec(kernel="fp8"), 8) != key(BASE, 8)
    assert key(simulated, 16) == key(BASE, 16)


def test_settings_without_effect_leave_the_name() -> None:
    bare = QuantSpec(rotation="none", permutation="none")
    assert key(dataclasses.replace(bare, block_size=64)) == key(bare)
    assert key(dataclasses.replace(bare, permutation="zigzag")) == key(bare)
    assert key(dataclasses.replace(BASE, weight_scale="absmax"), bits=16) == key(bits=16)


def test_weight_layer_checkpoint_and_bits_change_the_name() -> None:
    names = {
        key(),
        key(bits=8),
        pack_key("other", "layers.0", WEIGHT, 4, BASE, MAXIMA),
        pack_key("tiny", "layers.1", WEIGHT, 4, BASE, MAXIMA),
        pack_key("tiny", "layers.0", WEIGHT.nextafter(WEIGHT + 1), 4, BASE, MAXIMA),
        pack_key("tiny", "layers.0", WEIGHT.bfloat16(), 4, BASE, MAXIMA),
        pack_key("tiny", "layers.0", WEIGHT.view(64, 32), 4, BASE, MAXIMA),
    }
    assert len(names) == 7


def test_calibration_counts_where_it_is_looked_at() -> None:
    assert key(maxima=MAXIMA * 2) != key()
    blind = dataclasses.replace(BASE, permutation="none")
    assert key(blind, maxima=MAXIMA * 2) == key(blind)
    smoothed = dataclasses.replace(blind, smoothing=0.5)
    assert key(smoothed, maxima=MAXIMA * 2) != key(smoothed)


def test_samples_count_for_the_greedy_rotation_alone() -> None:
    greedy = dataclasses.replace(BASE, rotation="greedy")
    samples = torch.ones(3, 64)

    def name(quant: QuantSpec, samples: torch.Tensor, maxima: torch.Tensor = MAXIMA) -> str:
        return pack_key("tiny", "layers.0", WEIGHT, 4, quant, maxima, samples)

    assert name(greedy, samples) != name(greedy, samples * 2)
    assert name(greedy, samples) == name(greedy, samples, MAXIMA * 2)
    assert name(BASE, samples) == name(BASE, samples * 2) == key()


def test_a_greedy_pack_survives_its_file(tmp_path: Path) -> None:
    for permutation in ("zigzag", "none"):
        quant = QuantSpec(rotation="greedy", permutation=permutation)
        first = outputs(quantized(quant, pack_dir=tmp_path))
        assert torch.equal(outputs(quantized(quant, pack_dir=tmp_path)), first)
        assert torch.equal(outputs(quantized(quant)), first)


def test_the_same_settings_use_the_same_files(tmp_path: Path) -> None:
    first = outputs(quantized(BASE, pack_dir=tmp_path))
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(stamps) == len(LAYERS)
    assert torch.equal(outputs(quantized(BASE, pack_dir=tmp_path)), first)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == stamps
    assert torch.equal(outputs(quantized(BASE)), first)


def test_packs_of_e4m3_survive_their_files_and_serve_both_kernels(tmp_path: Path) -> None:
    simulated, real = QuantSpec(number_format="e4m3"), QuantSpec(kernel="fp8")
    first = outputs(quantized(simulated, (8, 8), pack_dir=tmp_path))
    files = sorted(tmp_path.iterdir())
    assert load_file(files[0])["weight"].dtype == torch.float8_e4m3fn
    assert torch.equal(outputs(quantized(simulated, (8, 8), pack_dir=tmp_path)), first)
    product = outputs(quantized(real, (8, 8), pack_dir=tmp_path))
    assert torch.equal(outputs(quantized(real, (8, 8))), product)
    assert sorted(tmp_path.iterdir()) == files
    assert relative_error(product, first) <= 1e-2


def test_another_block_size_makes_other_files(tmp_path: Path) -> None:
    small = outputs(quantized(BASE, pack_dir=tmp_path))
    large = outputs(quantized(dataclasses.replace(BASE, block_size=64), pack_dir=tmp_path))
    assert not torch.equal(small, large)
    assert len(list(tmp_path.iterdir())) == 2 * len(LAYERS)


def test_a_damaged_pack_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    quantized(BASE, pack_dir=tmp_path)
    path = min(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(EvaluationError, match=f"{path.name} is damaged"):
        quantized(BASE, pack_dir=tmp_path)


def test_a_renamed_pack_is_an_error(tmp_path: Path) -> None:
    quantized(BASE, pack_dir=tmp_path)
    one, other = sorted(tmp_path.iterdir())
    one.write_bytes(other.read_bytes())
    with pytest.raises(EvaluationError, match=f"{one.name} holds the key '{other.stem}'"):
        quantized(BASE, pack_dir=tmp_path)


def test_a_pack_of_other_shapes_is_an_error(tmp_path: Path) -> None:
    quantized(BASE, pack_dir=tmp_path)
    for path in tmp_path.iterdir():
        tensors = load_file(path)
        tensors["scales"] = tensors["scales"].double()
        save_file(tensors, path, metadata={"key": path.stem})
    with pytest.raises(EvaluationError, match=r"holds .*float64.*delete it"):
        quantized(BASE, pack_dir=tmp_path)
