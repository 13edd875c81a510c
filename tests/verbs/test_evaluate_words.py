"""What `evaluate` makes of a plan and of the settings given with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from duqsweep import cli, exit_codes, files


@pytest.mark.parametrize(
    ("words", "steps", "include", "name"),
    [
        (["--plan", "plan_c"], 10, "dit_mlp", "plan_c"),
        (["--plan", "plan_c", "policy.num_steps=4"], 4, "dit_mlp", None),
        (["policy.num_steps=4", "--plan=plan_c", "++quant.include=dit_attn"], 4, "dit_attn", None),
        (["--plan", "plan_c", "quant.smoothing=0.5"], 10, "dit_mlp", "plan_c"),
    ],
)
def test_settings_come_on_top_of_a_plan_and_are_echoed(
    words, steps, include, name, broken_checkpoint, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--episodes", "0", f"policy.checkpoint={broken_checkpoint}", *words]
    code = cli.main(["evaluate", *given])
    assert code == exit_codes.FAILED_TRIALS  # the checkpoint is broken
    out = capsys.readouterr().out
    assert f" policy.num_steps={steps} " in out.splitlines()[0]
    assert f" quant.include={include} " in out.splitlines()[0]
    (folder,) = tmp_path.glob("sweeps/*/trials/0000")
    trial = files.read_json(folder / files.SPEC_JSON)
    assert (trial["spec"]["policy"]["num_steps"], trial["name"]) == (steps, name)


def test_two_evaluations_within_one_second_have_a_folder_each(
    broken_checkpoint, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form: "20261128-200000")
    for more in ([], ["--episodes", "0"]):  # the second starts no simulator
        assert cli.main(["evaluate", f"policy.checkpoint={broken_checkpoint}", *more]) == 3
    assert len(list(tmp_path.glob("sweeps/evaluate-20261128-200000-*"))) == 2


def test_the_number_of_episodes_is_given_in_one_way(
    broken_checkpoint, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [f"policy.checkpoint={broken_checkpoint}", "budget.episodes_per_trial=4"]
    assert cli.main(["evaluate", *words]) == exit_codes.CONFIG
    assert "as --episodes N, not as budget.episodes_per_trial=4" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
