"""`doctor` names what is broken, one line for each check, and never ends in a traceback."""

from __future__ import annotations

import re
from pathlib import Path

from duqsweep import cli, exit_codes


def test_each_broken_part_is_one_line(
    broken_checkpoint: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # neither a compiler nor SLURM
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    words = ["suite=libero_10", f"suite.assets={tmp_path}"]
    words.append(f"policy.checkpoint={broken_checkpoint}")
    assert cli.main(["doctor", *words]) == exit_codes.ERROR
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[-1].startswith("broken: ")
    assert {"policy", "simulator"} <= set(lines[-1].removeprefix("broken: ").split(", "))
    assert all(re.match(r"\[(FAIL|none| ok )\] [\w. ]+: ", line) for line in lines[:-1]), out
    assert "Traceback" not in out + err


def test_the_recorded_suite_needs_no_other_setting(
    broken_checkpoint: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    words = ["suite=recorded", f"policy.checkpoint={broken_checkpoint}"]
    assert cli.main(["doctor", *words]) == exit_codes.ERROR  # the policy is broken
    assert "[ ok ] simulator: " in capsys.readouterr().out


def test_a_suite_that_does_not_exist_is_refused(capsys) -> None:
    assert cli.main(["doctor", "suite=libero_99"]) == exit_codes.CONFIG
    out, err = capsys.readouterr()
    assert out == ""
    assert (err.startswith("duqsweep: "), "libero_99" in err) == (True, True)


def test_a_launcher_that_cannot_work_gets_no_job(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["doctor", "launcher=slurm"]) == exit_codes.ERROR
    out, _ = capsys.readouterr()
    assert "[FAIL] slurm: launcher=slurm needs sbatch on PATH" in out
    assert out.splitlines()[-1] == "broken: slurm"  # a login node need not evaluate anything
    assert list(tmp_path.iterdir()) == []
