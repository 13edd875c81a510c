"""Trials whose jobs died through no fault of the policy, and trials that a user retries."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend, JournalStorage

from duqsweep import cli, exit_codes, files

CONF = Path(__file__).parent / "conf"


def words(folder: Path, checkpoint: Path, *more: str) -> list[str]:
    where = [f"dir={folder}", f"policy.checkpoint={checkpoint}"]
    return ["+sweep=tiny", "--config-dir", str(CONF), *where, *more]


def study_of(folder: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(folder / files.STUDY_LOG)))
    return optuna.load_study(study_name="tiny", storage=storage)


def results(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{files.TRIALS_DIR}/*/{files.RESULT_JSON}"))


def test_a_set_up_that_fails_is_told_once_and_costs_no_trial(
    broken_checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sweep"
    local = words(folder, broken_checkpoint, "launcher=local", "launcher.jobs=1")
    code = cli.main([*local, "launcher.setup=['echo no such module >&2; exit 1']"])
    err = capfd.readouterr().err
    assert code == exit_codes.ERROR
    assert err.count("no such module") == 1
    assert "every job died the same way (setup)" in err
    assert "the same command resumes" in err
    assert len(list((folder / files.WORKERS_DIR).iterdir())) == 3
    assert results(folder) == []
    assert [trial.state.name for trial in study_of(folder).trials] == ["RUNNING"]
    assert cli.main(["status", str(folder), "--json"]) == exit_codes.OK
    assert json.loads(capfd.readouterr().out)["counts"]["open"] == 1
    # Where set-up does not fail the trial runs, and what its policy does is final.
    assert cli.main(words(folder, broken_checkpoint)) == exit_codes.FAILED_TRIALS
    assert len(results(folder)) == 2


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory, broken_checkpoint: Path) -> list[str]:
    """The words of a sweep whose two trials failed through their policy's fault."""
    folder = tmp_path_factory.mktemp("retry") / "sweep"
    given = words(folder, broken_checkpoint)
    assert cli.main(given) == exit_codes.FAILED_TRIALS
    return given


def folder_of(given: list[str]) -> Path:
    return next(Path(word[4:]) for word in given if word.startswith("dir="))


def test_a_failed_trial_is_retried_when_a_person_asks_for_it(failed, capsys):
    folder = folder_of(failed)
    assert cli.main(failed) == exit_codes.FAILED_TRIALS  # by itself, nothing is
    assert not list(folder.glob("trials/*/failures.jsonl"))
    assert cli.main(["retry", str(folder), "--trial", "1"]) == exit_codes.OK
    assert "trial 1 of tiny will be evaluated again" in capsys.readouterr().out
    assert [path.parent.name for path in results(folder)] == ["0000"]
    assert cli.main(failed) == exit_codes.FAILED_TRIALS
    assert len(results(folder)) == 2
    assert cli.main(["retry", str(folder)]) == exit_codes.OK
    assert results(folder) == []
    assert cli.main(failed) == exit_codes.FAILED_TRIALS
    kept = files.read_lines(folder / files.TRIALS_DIR / "0001" / files.FAILURES_JSONL)
    assert [line["kind"] for line in kept] == ["retry", "retry"]
    assert kept[0]["result"]["outcome"] == "failed"


def test_only_a_failed_trial_can_be_retried(failed, capsys):
    assert cli.main(["retry", str(folder_of(failed)), "--trial", "7"]) == exit_codes.CONFIG
    assert "tiny has no trial 7; it has [0, 1]" in capsys.readouterr().err


def test_a_finished_sweep_says_whether_its_settings_were_changed(failed, capsys):
    cli.main(failed)
    assert "nothing was left to do, nothing was changed" in capsys.readouterr().out
    cli.main([*failed, "budget.tolerated_failures=0.5"])
    assert "nothing was left to do, sweep.yaml holds the new settings" in capsys.readouterr().out


def test_ctrl_c_in_the_evaluation_itself_does_not_speak_of_jobs(
    failed, tmp_path, capsys, monkeypatch
):
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("duqsweep.worker.evaluate.evaluate", interrupted)
    here = [f"dir={tmp_path / 's'}" if word.startswith("dir=") else word for word in failed]
    assert cli.main(here) == exit_codes.INTERRUPTED
    said = capsys.readouterr().out.splitlines()
    assert "interrupted: nothing is lost; the same command resumes from here:" in said
    assert said[-1] == f"  python -m duqsweep {shlex.join(here)}"
