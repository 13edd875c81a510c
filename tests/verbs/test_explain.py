"""The cost model against counts made by hand; the seed document's arithmetic against its text."""

from __future__ import annotations

from pathlib import Path

import pytest

from duqsweep.checkpoint.sizes import sizes_of
from duqsweep.control.explain.cost import PartCost, call_costs
from duqsweep.control.explain.document import PROTOTYPE, Document, comparison, mistakes
from duqsweep.errors import ConfigError
from duqsweep.files import write_json
from duqsweep.result import LatencyStats, Vitals
from duqsweep.spec import QuantSpec
from duqsweep.verbs.explain import main, table


def pi05_costs(quant: QuantSpec = PROTOTYPE, num_steps: int = 10) -> tuple[PartCost, ...]:
    return call_costs("pi05_libero", sizes_of("pi05_libero"), num_steps, quant)


def write_vitals(path: Path, num_steps: int, **reads: float) -> Path:
    vitals = Vitals(
        layers_quantized=0,
        bits={},
        mean_weight_bits=16.0,
        weights_mb=1.0,
        modelled={"expert_forwards_per_call": num_steps, **reads},
        call_ms=LatencyStats(p50=12.34, p95=13.0, n=5),
        parts_ms={"vision": 1.25, "llm": 3.5, "dit": 7.75},
        stages_ms=None,
        reference_call_ms=12.34,
        speedup=1.0,
        compile_s=0.0,
        action_error=0.0,
        kernel="none",
        hardware={"gpu": "a GPU"},
        versions={},
        git=None,
    )
    write_json(path, vitals.to_json())
    return path


def test_the_documents_arithmetic_follows_from_its_assumptions() -> None:
    document = Document()
    assert document.llm_rotations == 4_608
    assert document.dit_rotations == 2_304
    assert document.dit_rotations_per_call == 69_120
    assert document.dit_rotations_per_call / document.llm_rotations == 15
    assert document.episode_s == 235
    assert document.llm_only_episode_s == 10
    assert document.episode_s / document.llm_only_episode_s == pytest.approx(24, abs=0.6)


def test_every_linear_has_blocks_of_its_own_widths() -> None:
    # One DiT layer at block 16: inputs 3·1024 (q k v), 2048 (o), 2·1024 (gate, up), 4096 (down);
    # outputs 2048, 256, 256, 1024, 4096, 4096, 1024.
    inputs = (5 * 1024 + 2048 + 4096) // 16
    outputs = (2048 + 256 + 256 + 1024 + 4096 + 4096 + 1024) // 16
    assert inputs + outputs == 1504
    _, llm, dit = pi05_costs()
    assert dit.rotations_per_forward == 18 * 1504 == 27_072
    assert dit.rotations == 270_720
    # LLM: inputs 6·2048 and 16384, outputs 2048, 256, 256, 2048, 16384, 16384, 2048.
    assert llm.rotations == 18 * (6 * 2048 + 16384 + 3 * 2048 + 2 * 256 + 2 * 16384) // 16 == 76_608


def test_without_quantization_nothing_is_rotated() -> None:
    for cost in pi05_costs(QuantSpec()):
        assert cost.rotations == cost.quantized == 0
        assert cost.flops == 2 * cost.forwards * cost.tokens * cost.parameters
        assert cost.packed_bytes == cost.full_bytes == 2 * cost.forwards * cost.parameters


def test_the_parts_have_the_sizes_of_pi05() -> None:
    vision, llm, dit = pi05_costs(QuantSpec())
    assert (vision.linears, llm.linears, dit.linears) == (162, 126, 126)
    assert dit.parameters == 18 * (2 * 1024 * 2048 + 2 * 1024 * 256 + 3 * 1024 * 4096)
    assert (vision.tokens, llm.tokens, dit.tokens) == (512, 534, 10)
    assert (vision.forwards, llm.forwards, dit.forwards) == (1, 1, 10)


def test_fewer_steps_save_expert_forwards_alone() -> None:
    ten, five = pi05_costs(), pi05_costs(num_steps=5)
    assert ten[:2] == five[:2]
    assert ten[2].flops == 2 * five[2].flops
    assert ten[2].rotations == 2 * five[2].rotations


def test_a_policy_without_a_known_prompt_is_refused() -> None:
    with pytest.raises(ConfigError, match="pi05_libero"):
        call_costs("other", sizes_of("embedded"), 10, QuantSpec())


def test_the_page_sets_the_documents_numbers_beside_what_happens(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 0
    page = capsys.readouterr().out
    for number in ("4,608", "2,304", "69,120", "235", "76,608", "27,072", "270,720"):
        assert number in page
    rows = {name: (counted, real) for name, counted, real in comparison(Document(), pi05_costs())}
    assert rows["DiT forwards per call"] == ("30", "10")
    assert rows["DiT compute over LLM compute"] == ("1.5 to 7", "0.03")
    assert len(mistakes(Document(), pi05_costs())) == 10


def test_overrides_change_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    main(["policy.num_steps=4", "quant.block_size=64", "quant.include=dit_all"])
    page = capsys.readouterr().out
    assert "4 denoising steps" in page
    assert "126 linear layers quantized: rotation hadamard, block 64" in page
    assert f"{4 * 18 * (5 * 1024 + 2048 + 4096) // 64:,}" in page


def test_the_greedy_rotation_counts_twice(capsys: pytest.CaptureFixture[str]) -> None:
    main(["quant.rotation=greedy", "quant.include=dit_all"])
    page = capsys.readouterr().out
    assert "rotation greedy (before and after the permutation), block 16" in page
    assert f"{2 * 18 * (5 * 1024 + 2048 + 4096) // 16:,}" in page


def test_the_embedded_policy_is_explained_too(capsys: pytest.CaptureFixture[str]) -> None:
    main(["policy=embedded"])
    assert "One call of embedded" in capsys.readouterr().out


def test_measured_times_join_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--vitals", str(write_vitals(tmp_path / "vitals.json", num_steps=10))])
    page = capsys.readouterr().out
    assert all(ms in page for ms in ("1.25", "3.50", "7.75", "12.34"))
    assert "a GPU" in page


def test_costs_are_counted_for_the_prompt_that_the_trial_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reads = {"pictures_per_call": 1, "prompt_tokens_per_call": 50}
    main(["--vitals", str(write_vitals(tmp_path / "vitals.json", 10, **reads))])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    tokens = {}
    for part in ("vision", "llm", "dit"):
        (row,) = (row for row in rows if row[:1] == [part] and row[1].isdigit())
        tokens[part] = row[4]
    assert tokens == {"vision": "256", "llm": "306", "dit": "10"}


def test_vitals_of_another_number_of_steps_are_refused(tmp_path: Path) -> None:
    path = write_vitals(tmp_path / "vitals.json", num_steps=3)
    with pytest.raises(ConfigError, match=r"policy\.num_steps=3"):
        main(["--vitals", str(path)])


def test_missing_vitals_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.json"):
        main(["--vitals", str(tmp_path / "absent.json")])


def test_columns_line_up() -> None:
    assert table([["a", "10"], ["bcd", "2"]]) == "a    10\nbcd   2"
