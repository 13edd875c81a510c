"""The matched table keeps apart whose figure it is, and says why a shape has none of ours."""

from __future__ import annotations

import json
from pathlib import Path

import matched
import pytest
import torch
from latency.published import PUBLISHED, Shape
from matched import Ours

from duqsweep.files import write_json


def test_published_figures_stand_beside_ours_at_the_same_shape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matched, "NUM_STEPS", 1)
    out = tmp_path / "matched.json"
    words = ["--device=cpu", "--who=FlashRT|NVIDIA", "--seconds=0.01", f"--out={out}"]
    with torch.compiler.set_stance("force_eager"):  # whether it compiles is not the question
        code = matched.main(words)
    assert code == 1  # the embedded policy has no third camera
    rows = json.loads(out.read_text())["rows"]
    assert [row["who"] for row in rows] == ["FlashRT"] * 5 + ["NVIDIA"]
    assert not any(row["same_card"] for row in rows)
    one, two, three, thor, groot, nvidia = (row["ours"] for row in rows)
    assert one[0]["ms"] > 0
    assert one[0]["error"] < 1e-4
    assert one[0]["ms"] != two[0]["ms"]
    assert two == thor
    assert three[0]["ms"] is None
    assert "cameras must be 1 to 2, got 3" in three[0]["failure"]
    assert groot == nvidia == []
    printed = capsys.readouterr().out
    assert printed.count("on another card") == 3
    assert printed.count("no shape in common") == 2


def test_figures_are_added_to_those_of_the_same_card(tmp_path: Path) -> None:
    path, shape, other = tmp_path / "matched.json", Shape(3, 50, 1), Shape(3, 50, 200)
    first = {shape: [Ours("a", 1.0), Ours("b", 2.0), Ours("c", failure="no time left")]}
    write_json(path, matched.document({}, "NVIDIA H200", PUBLISHED, first))
    kept = matched.figures_of(path, "NVIDIA H200")
    assert kept[shape] == first[shape][:2]
    new = {
        shape: [Ours("b", failure="no time left"), Ours("a", 3.0), Ours("c", 4.0)],
        other: [Ours("a", failure="no time left")],
    }
    together = matched.with_kept(new, kept)
    assert {found.form: found.ms for found in together[shape]} == {"a": 3.0, "b": 2.0, "c": 4.0}
    assert together[other] == new[other]
    with pytest.raises(SystemExit, match="has figures of NVIDIA H200, and this is a NVIDIA H100"):
        matched.figures_of(path, "NVIDIA H100")
    with pytest.raises(SystemExit, match="there is no"):
        matched.figures_of(tmp_path / "none.json", "NVIDIA H200")


def test_forms_are_all_that_run_a_whole_call_in_a_graph() -> None:
    names = {form.name for form in matched._forms("cuda", "")}
    assert {"policy_bf16_merged_graph", "policy_w8a8_llm_w4a8_dit_fused_graph"} <= names
    assert not any(name.startswith(("expert", "prefix", "vision")) for name in names)
    assert not any("fake" in name or "eager" in name for name in names)
    assert {form.name for form in matched._forms("cuda", "w4a8_fused")} == {
        "policy_w4a8_fused_graph"
    }


def test_the_fastest_and_bf16_forms_come_first_and_only_where_policies_run_them() -> None:
    names = [form.name for form in matched._forms("cuda", "")]
    first = ("w4a8", "w8a8_w4a8_dit", "w4a8_llm_dit", "w8a8_llm_w4a8_dit")
    assert names[:4] == [f"policy_{name}_fused_graph" for name in first]
    assert {*names[4:6]} == {"policy_bf16_fused_graph", "policy_bf16_merged_graph"}
    long, short = Shape(3, 50, 1), Shape(3, 10, 20)
    for name, runs in (("bf16_fused", False), ("bf16_merged", True), ("w4a8_fused", True)):
        (form,) = matched._forms("cuda", f"policy_{name}")
        assert matched._is_run_at(form, long) == runs
        assert matched._is_run_at(form, short)


def test_every_figure_names_its_source_its_machine_and_what_hinders_a_match() -> None:
    for row in PUBLISHED:
        assert row.source.startswith("https://")
        assert row.machine.startswith("NVIDIA ")
        assert row.remark
        assert (row.shape is None) == ("another model" in row.remark)


def test_a_card_is_the_same_whatever_its_memory() -> None:
    ours = [row for row in PUBLISHED if matched.same_card(row, "NVIDIA H100 80GB HBM3")]
    assert {row.who for row in ours} == {"flash-vla", "NVIDIA"}
    assert matched._slug("NVIDIA H100 80GB HBM3") == "h100"
    assert matched._slug("NVIDIA H200") == "h200"
    assert Shape(3, 50, 1) in {row.shape for row in ours}
