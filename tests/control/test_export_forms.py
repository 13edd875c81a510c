"""Each exported form, read again by whom it is for, is the same trial."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from composed import composed
from synthetic_sweep import OBJECTIVES, make_result, make_trial, make_vitals, write_complete
from synthetic_sweep import make_episodes as episodes_of
from synthetic_sweep import write_trial as write

from duqsweep.checkpoint.sizes import linear_layers, sizes_of
from duqsweep.control.card import model_card
from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import compose
from duqsweep.control.export import as_plan
from duqsweep.control.front.content import compute_front
from duqsweep.control.front.records import Front
from duqsweep.control.openpi_env import as_openpi_env, layers_regex
from duqsweep.control.trial_words import TrialWords, trial_words
from duqsweep.control.trial_words import text as text_of
from duqsweep.control.trials.reader import read_trials
from duqsweep.errors import ConfigError
from duqsweep.quant.select import select_layers
from duqsweep.spec import Trial

RULES = "quant.rules=[{include: 'layers\\.0\\.mlp', weight_bits: 8, act_bits: 8}]"
# A sweep with settings of its own → a point of its space.
SWEEPS = {
    "plain": (("+sweep=dit_speed",), {"policy.num_steps": 3, "quant.include": "dit_mlp"}),
    "own base": (
        ("+sweep=dit_speed", "quant.act_bits=4", "quant.smoothing=0.5", "seed=3"),
        {"quant.weight_bits.default": 8, "runtime.compile": True},
    ),
    "own rules and layers": (
        ("+sweep=smoke", RULES, "+quant.weight_bits.layers.2=2", "suite.max_steps=100"),
        {"quant.include": r"gemma_expert.*layers\.(1|2)\..*"},
    ),
    "nothing quantized": (("+sweep=dit_speed",), {"quant.include": "none"}),
    "by category": (
        ("+sweep=smoke", "suite=libero_pro_goal", "suite.categories=[original,swap]"),
        {"policy.num_steps": 2},
    ),
}


def exported(name: str) -> tuple[Trial, TrialWords]:
    words, params = SWEEPS[name]
    config = composed(*words)
    trial = Space.from_config(config).trial(7, params)
    return trial, trial_words(trial, config.base)


@pytest.mark.parametrize("name", SWEEPS)
def test_the_words_evaluate_the_same_trial(name: str) -> None:
    trial, words = exported(name)
    again = compose(["name=again", "enqueue=[reference]", *words.overrides])
    assert Space.from_config(again).trial(0, {}).fingerprint == trial.fingerprint


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_with_the_plan_has_the_same_trial(name: str, tmp_path: Path) -> None:
    trial, words = exported(name)
    text = as_plan(trial, "mine", words)
    path = tmp_path / "sweep" / "own.yaml"
    path.parent.mkdir()
    path.write_text(f"# @package _global_\nname: own\nenqueue: [mine_0007]\n{text}")
    shared = re.search(r"it is this trial with (.*)", text)
    assert shared is not None
    config = compose(["+sweep=own", *shlex.split(shared[1])], tmp_path)
    space = Space.from_config(config)
    assert space.trial(0, space.plans["mine_0007"]).fingerprint == trial.fingerprint
    command = re.search(r"python -m duqsweep evaluate (.*)", text)
    assert command is not None
    assert shlex.split(command[1]) == words.overrides


def variables(script: str) -> dict[str, str]:
    """What the prototype would find in its environment."""
    done = subprocess.run(
        ["bash", "-eu", "-c", f"{script}\nenv -0"],
        capture_output=True,
        text=True,
        check=True,
        env={},
    )
    pairs = (item.partition("=") for item in done.stdout.split("\0"))
    prefix = "OPENPI_DUQUANT_"
    return {key.removeprefix(prefix): value for key, _, value in pairs if key.startswith(prefix)}


def prototypes_bits(found: dict[str, str], layers: list[str]) -> dict[str, tuple[int, int]]:
    """Layers and bits as the prototype reads its variables: one regex, whole names."""
    if not found:
        return {}
    listed = filter(None, found.get("WBITS", "").split(","))
    single = {name: int(bits) for name, bits in (item.split(":") for item in listed)}
    reached = [name for name in layers if re.match(found["INCLUDE"], name)]
    assert reached == [name for name in layers if re.search(found["INCLUDE"], name)]
    default, act = int(found["WBITS_DEFAULT"]), int(found["ABITS"])
    return {name: (single.get(name, default), act) for name in reached}


@pytest.mark.parametrize("name", SWEEPS)
def test_the_prototype_quantizes_the_same_layers(name: str) -> None:
    trial, _ = exported(name)
    layers = linear_layers(sizes_of("embedded"))
    bits = select_layers(trial.spec.quant, layers)
    found = variables(as_openpi_env(trial, "mine", bits, layers))
    assert prototypes_bits(found, list(layers)) == bits
    if bits:
        assert found["BLOCK"] == str(trial.spec.quant.block_size)
        assert found["PACKDIR"].endswith(trial.fingerprint)


@pytest.mark.parametrize("size", ["embedded", "pi05_libero"])
def test_one_regex_reaches_any_choice_of_layers(size: str) -> None:
    layers = list(linear_layers(sizes_of(size)))
    choices = [layers, layers[:1], layers[::3], layers[5:40], [n for n in layers if "mlp" in n]]
    for chosen in choices:
        regex = layers_regex(chosen, layers)
        assert [name for name in layers if re.match(regex, name)] == chosen


def test_bits_that_the_prototype_would_round_to_zero_are_off() -> None:
    layers = linear_layers(sizes_of("embedded"))
    bits = dict.fromkeys(list(layers)[:2], (16, 8))
    trial = make_trial(0)
    assert variables(as_openpi_env(trial, "x", bits, layers))["WBITS_DEFAULT"] == "0"


def test_what_the_prototype_cannot_do_is_said() -> None:
    words = ["policy.schedule=shifted", "quant.kernel=fp8", "quant.weight_bits.default=8"]
    words += ["quant.include=dit_mlp", "policy.num_steps=4", "enqueue=[reference]", "name=mine"]
    space = Space.from_config(compose(words))
    trial = space.trial(0, {})
    text = as_openpi_env(trial, "mine", space.bits(trial.spec), space.base.layers)
    assert "# Measured with schedule=shifted; openpi's steps are uniform" in text
    assert "# Measured with number_format=e4m3; the prototype only has integer" in text
    assert "# Measured with kernel=fp8; the prototype simulates" in text


def test_two_widths_of_activations_are_refused() -> None:
    layers = linear_layers(sizes_of("embedded"))
    one, two = list(layers)[:2]
    with pytest.raises(ConfigError, match="one number of activation bits"):
        as_openpi_env(make_trial(0), "x", {one: (4, 8), two: (4, 4)}, layers)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Front]:
    sweep_dir = tmp_path_factory.mktemp("sweeps") / "mine"
    write_complete(sweep_dir, make_trial(0, 16, 10, "reference"), 1.0, 0.97, 12)
    config = composed("+sweep=dit_speed")
    point = Space.from_config(config).trial(7, {"policy.num_steps": 3, "quant.include": "dit_mlp"})
    played = episodes_of(7, 12, 0.9)
    write(sweep_dir, point, make_vitals(make_trial(7), 1.7), played, make_result(played))
    write(sweep_dir, make_trial(8))
    write(sweep_dir, make_trial(9), make_vitals(make_trial(9), 1.7))
    return sweep_dir, compute_front(sweep_dir, OBJECTIVES)


def card_of(sweep_dir: Path, front: Front, number: int) -> str:
    view = next(view for view in read_trials(sweep_dir) if view.number == number)
    return model_card(view, front, trial_words(view.trial, composed("+sweep=dit_speed").base))


def test_the_data_of_a_card_are_the_trial_and_its_point(front: tuple[Path, Front]) -> None:
    text = card_of(*front, 7)
    _, head, body = text.split("---\n", 2)
    data = yaml.safe_load(head)["duqsweep"]
    words = [*data["shared"], *(f"{k}={text_of(v)}" for k, v in data["settings"].items())]
    again = compose(["name=again", "enqueue=[reference]", *words])
    assert Space.from_config(again).trial(0, {}).fingerprint == data["fingerprint"]
    point = next(point for point in front[1].points if point.trial == 7)
    assert data["measures"] == {
        "success_rate": point.success.success_rate,
        **{name: value for name, value in point.measures.items() if value is not None},
    }
    assert (data["success"]["low"], data["state"]) == (point.success.success_low, "unconfirmed")
    assert "**Not confirmed**" in body
    assert f"{point.success.counts.successes} of 12" in body
    assert "Measured on AMD EPYC 7V12" in body


@pytest.mark.parametrize(("number", "why"), [(8, "was not measured"), (9, "runs")])
def test_a_trial_without_numbers_has_no_card(number, why, front: tuple[Path, Front]) -> None:
    with pytest.raises(ConfigError, match=f"trial {number} of mine {why}"):
        card_of(*front, number)
