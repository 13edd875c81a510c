"""The latency benchmark runs on a CPU and writes what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from latency import FURTHER, TELLING
from latency.bench import Bench
from latency.calls import prefix_parts
from latency.floors import Ceilings, floor_ms
from latency.measure import Measurement, tensors_in
from latency.registry import FORMS, form
from latency.settings import EXPERT_W4A8
from latency.table import Row, document, ratios

from duqsweep.checkpoint.sizes import sizes_of
from duqsweep.inference.prefix import FusedPrefix
from duqsweep.policy.pi05 import Pi05

ROOT = Path(__file__).parents[2]


def row(name: str, ms: float, horizon: int = 10, cameras: int = 2) -> Row:
    found = Measurement(ms, p95_ms=ms, calls=2, error=0.0, weights_mb={}, build_s=0.0)
    return Row(name, cameras, horizon, precise="bf16" in name, floor_ms=1.0, measured=found)


def test_forms_give_a_table_and_json(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    command = [sys.executable, "benchmarks/policy_latency.py", "--device=cpu", "--num-steps=1"]
    options = ["--forms=expert_(bf16_eager|loop)", "--seconds=0.05", f"--out={out}"]
    run = subprocess.run(
        [*command, *options, "--horizon", "10", "20"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    data = json.loads(out.read_text())
    assert data["machine"]["policy"] == "embedded"
    rows = {(row["form"], row["horizon"]): row for row in data["rows"]}
    assert set(rows) == {("expert_loop", 10), ("expert_fp32_eager", 10)}
    assert rows["expert_loop", 10]["ratio_to_seed_loop"] == 1
    assert rows["expert_loop", 10]["error"] < 1e-5
    assert rows["expert_fp32_eager", 10]["ratio_to_seed_loop"] > 1
    assert rows["expert_fp32_eager", 10]["ratio_to_fastest_bf16"] == 1
    assert all(0 < row["floor_ms"] < row["ms"] for row in rows.values())
    assert "expert_loop" in run.stdout


def test_every_form_has_its_place_in_the_order() -> None:
    assert sorted((*TELLING, *FURTHER)) == sorted(FORMS)


def test_a_name_is_registered_once_and_begins_with_a_scope() -> None:
    for name in (TELLING[0], "wheel_bf16"):
        with pytest.raises(ValueError, match=name):
            form(name)


def test_ratios_tell_how_many_times_as_fast_a_form_is() -> None:
    loop, slow, fast = (
        row("expert_loop", 800.0),
        row("expert_bf16", 10.0),
        row("expert_bf16_b", 8.0),
    )
    quantized, other = row("expert_w4a8", 4.0), row("expert_w4a8", 5.0, horizon=50)
    policy = row("policy_w4a8", 6.0)
    three = row("expert_w4a8", 4.0, cameras=3)
    rows = [loop, slow, fast, quantized, other, policy, three]
    found = ratios(quantized, rows)
    assert (found.to_seed_loop, found.to_fastest_bf16) == (200.0, 2.0)
    assert ratios(other, rows).to_fastest_bf16 is None
    assert ratios(three, rows).to_fastest_bf16 is None
    assert ratios(other, rows).to_seed_loop == 160.0
    assert ratios(policy, rows).to_seed_loop is None
    assert document({"gpu": None}, rows)["machine"] == {"gpu": None}


def test_another_horizon_shares_weights_and_frozen_layers() -> None:
    short = Bench("embedded", "cpu", num_steps=1, horizon=None)
    frozen = short.frozen(EXPERT_W4A8)
    long = short.at(20)
    again = long.frozen(EXPERT_W4A8)
    assert (short.horizon, long.horizon, again.sizes.horizon) == (10, 20, 20)
    assert long.noise.shape == (20, short.sizes.action_dim)
    pairs = zip(frozen.buffers(), again.buffers(), strict=True)
    assert all(one.data_ptr() == other.data_ptr() for one, other in pairs)
    assert long.module.action_in_proj.weight is short.module.action_in_proj.weight


def test_another_shape_has_another_prefix_and_other_work() -> None:
    two = Bench("embedded", "cpu", num_steps=1, horizon=None)
    one, short = two.at(two.horizon, cameras=1), two.at(two.horizon, prompt_tokens=5)
    lengths = {name: at.cache[0][0].shape[2] for name, at in (("2", two), ("1", one), ("5", short))}
    assert lengths["2"] - lengths["1"] == two.sizes.vision.tokens
    assert lengths["2"] - lengths["5"] == two.prompt.shape[1] - 5
    assert one.reads == (1, two.prompt.shape[1])
    assert short.reads == (2, 5)
    best = Ceilings(copy_tb_s=1e9, matmul_tflop_s=1.0, int8_top_s=1.0)
    form = FORMS["vision_bf16_merged_graph"]
    assert floor_ms(two, form, best) == pytest.approx(2 * floor_ms(one, form, best))
    with pytest.raises(ValueError, match="cameras must be 1 to 2, got 3"):
        two.at(two.horizon, cameras=3)
    with pytest.raises(ValueError, match="prompt_tokens must be 1 to 40, got 0"):
        two.at(two.horizon, prompt_tokens=0)


def test_an_integer_form_has_the_floor_of_its_packed_weights() -> None:
    bench = Bench("embedded", "cpu", num_steps=2, horizon=None)
    slow_copies = Ceilings(copy_tb_s=1e-9, matmul_tflop_s=1e9, int8_top_s=1e9)
    plain, packed = FORMS["expert_bf16_fused_graph"], FORMS["expert_w4a8_fused_graph"]
    ratio = floor_ms(bench, packed, slow_copies) / floor_ms(bench, plain, slow_copies)
    assert 1 / 8 < ratio < 1 / 6  # 4 of 32 bits, and scales
    simulated = FORMS["expert_w4a8_fake_graph"]
    assert floor_ms(bench, simulated, slow_copies) == floor_ms(bench, plain, slow_copies)
    slow_products = Ceilings(copy_tb_s=1e9, matmul_tflop_s=1e-9, int8_top_s=2e-9)
    ratio = floor_ms(bench, packed, slow_products) / floor_ms(bench, plain, slow_products)
    assert ratio == 0.5


def test_every_weight_of_a_compiled_prefix_is_weighed() -> None:
    prefix = FusedPrefix(Pi05(sizes_of("embedded")))
    prefix.compile()
    reached = {tensor.untyped_storage().data_ptr() for tensor in tensors_in(prefix_parts(prefix))}
    assert {weight.untyped_storage().data_ptr() for weight in prefix.parameters()} <= reached
