"""A sweep, its status and its front survive every file that is damaged, missing or foreign."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stub_worker import DAMAGES, EPISODES, copied, finish, make_light, run

from duqsweep import cli, files
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.result import Throughput


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    make_light(monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepConfig, Path]:
    """A configuration, and the finished folder that it left; tests put copies in its place."""
    config, kept = finish(tmp_path_factory.mktemp("sweeps") / "odd")
    deaths = {"kind": "node", "fault": "machine", "message": "", "episodes": 0, "at_s": 1.0}
    trial = files.trial_dir(kept, 1)
    files.append_line(trial / files.FAILURES_JSONL, deaths)
    files.write_json(trial / files.THROUGHPUT_JSON, Throughput(1, wall_s=2.0, episodes=3).to_json())
    return config, kept


@pytest.fixture
def sweep(finished: tuple[SweepConfig, Path]) -> SweepConfig:
    return copied(finished)


TRIAL = f"{files.TRIALS_DIR}/0001"
FILES = [
    *(f"{TRIAL}/{name}" for name in files.TRIAL_FILES),
    files.LEDGER_JSON,
    files.REFERENCE_JSON,
    files.SIMULATOR_JSON,
    files.IDENTITY_JSON,
    files.STUDY_LOG,
    files.FRONT_JSON,
    files.FRONT_SOURCES_JSON,
]
# Nothing tells an old format from a missing mark, so such a folder is refused as one.
REFUSED = {(files.IDENTITY_JSON, "missing"), (files.IDENTITY_JSON, "other version")}
CASES = [(name, damage) for name in FILES for damage in DAMAGES if (name, damage) not in REFUSED]


@pytest.mark.fault(
    "spec.json truncated, corrupt, missing, of another version",
    "the trial is moved to quarantine and evaluated anew",
    lost="the damaged ones",
    repeated="of that trial",
)
@pytest.mark.fault(
    "vitals.json truncated, corrupt, missing, of another version",
    "moved; the trial is benchmarked again",
)
@pytest.mark.fault(
    "episodes.jsonl truncated, corrupt, missing, of another version",
    "moved; lines that can be read stay, the others are played again",
    lost="the damaged ones",
    repeated="the damaged ones",
)
@pytest.mark.fault(
    "result.json truncated, corrupt, missing, of another version",
    "moved; written again from the episodes",
)
@pytest.mark.fault(
    "state.json truncated, corrupt, missing, of another version",
    "moved; the state follows from the result",
)
@pytest.mark.fault("job.json truncated, corrupt, missing, of another version", "moved")
@pytest.mark.fault(
    "failures.jsonl truncated, corrupt, missing, of another version",
    "moved; lines that can be read stay",
)
@pytest.mark.fault(
    "ledger.json truncated, corrupt, missing, of another version",
    "moved; made again from suite and seed",
)
@pytest.mark.fault(
    "reference.json truncated, corrupt, missing, of another version",
    "moved; taken again from the first benchmark",
)
@pytest.mark.fault(
    "study.log truncated, corrupt, missing, of another version",
    "moved; the study is written anew from the folders",
)
@pytest.mark.fault("front.json truncated, corrupt, missing, of another version", "written again")
@pytest.mark.fault(
    "identity.json truncated or corrupt",
    "moved; confirmed by the study. A missing one is refused: nothing tells it from an old format",
)
@pytest.mark.parametrize(("name", "damage"), CASES)
def test_status_front_and_the_sweep_go_on(name, damage, sweep: SweepConfig, capsys) -> None:
    folder = sweep.directory
    before = json.loads((folder / files.FRONT_JSON).read_text())
    path = folder / name
    if not path.exists():
        pytest.skip("this sweep has no such file")
    DAMAGES[damage](path)
    for words in (["status", str(folder)], ["front", str(folder)]):
        assert cli.main(words) == 0
    capsys.readouterr()
    dispatcher = run(sweep)
    said = capsys.readouterr()
    after = json.loads((folder / files.FRONT_JSON).read_text())
    assert after == before
    assert {trial for trial, _ in dispatcher.played} <= {1}  # nothing of another trial is repeated
    if name.endswith(files.EPISODES_JSONL) and damage != "other version":
        assert len(dispatcher.played) <= EPISODES
    elif not name.endswith(files.SPEC_JSON) and not name.endswith(files.EPISODES_JSONL):
        assert dispatcher.played == []
    if (folder / files.QUARANTINE_DIR).exists():
        assert said.out.count("damaged: ") + said.err.count("damaged: ") >= 1
    if damage == "truncated":  # said once, and there is nothing left to do
        assert run(sweep).played == []
        assert "damaged: " not in capsys.readouterr().out
