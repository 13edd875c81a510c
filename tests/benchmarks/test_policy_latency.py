"""The latency benchmark runs on a CPU and writes what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_two_forms_give_a_table_and_json(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    command = [sys.executable, "benchmarks/policy_latency.py", "--device=cpu", "--num-steps=1"]
    options = ["--forms=expert_(bf16_eager|loop)", "--seconds=0.05", f"--out={out}"]
    run = subprocess.run(
        [*command, *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    data = json.loads(out.read_text())
    assert data["machine"]["policy"] == "embedded"
    rows = {row["form"]: row for row in data["rows"]}
    assert set(rows) == {"expert_fp32_eager", "expert_loop"}
    assert rows["expert_loop"]["ratio_to_seed_loop"] == 1
    assert rows["expert_fp32_eager"]["ratio_to_seed_loop"] > 1
    assert all(0 < row["floor_ms"] < row["ms"] for row in rows.values())
    assert "expert_loop" in run.stdout
