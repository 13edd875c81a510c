"""A setting is declared in `duqsweep/spec.py` and nowhere else: all that it needs follows from it.

The tests run a copy of the package in which a few lines of that file are added.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import duqsweep
from duqsweep.conf_dir import conf_dir

PACKAGE = Path(duqsweep.__file__).parent
# A line of spec.py → what is declared before it.
DECLARATIONS = {
    "    kernel: Kernel = field(": """\
    tile: int = field(default=3, metadata=setting("channels per tile", low=1, high=9))
    tile_order: Literal["rows", "columns"] = field(
        default="rows", metadata=setting("order in which tiles are computed", packs="none")
    )
    tile_gap: int = field(
        default=0,
        metadata=setting("tiles left out", allowed=(0, 2), used=lambda quant: quant.tile > 1),
    )
""",
    "    num_steps: int = field(": """\
    guidance: float = field(
        default=0.0, metadata=setting("strength of the guidance", above=-1, high=2)
    )
""",
    "    threads: int = field(": """\
    clock: Literal["fast", "slow"] = field(default="fast", metadata=setting("speed of the clock"))
    log_file: str | None = field(
        default=None, metadata=setting("file of the log", shared=True, path=True)
    )
""",
}
QUESTIONS = """
import json
import torch
from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import compose
from duqsweep.errors import ConfigError
from duqsweep.quant.packs import pack_key
from duqsweep.spec import QuantSpec, Trial

def space(*words):
    return Space.from_config(compose(["+sweep=smoke", *words]))

def refusal(*words):
    try:
        space(*words)
    except ConfigError as error:
        return str(error)

def trial(params):
    made = plain.trial(0, params)
    assert Trial.from_json(json.loads(json.dumps(made.to_json()))) == made
    return made.to_json()

def pack(**settings):
    weight = torch.ones(32, 32)
    return pack_key("tiny", "layers.0", weight, 4, QuantSpec(**settings), torch.ones(32))

plain = space()
searched = space("+space.quant.tile=range(1, 10)", "+space.runtime.clock=choice(fast, slow)")
print(json.dumps({
    "base": dict(plain.base.settings),
    "overridden": space("quant.tile=5", "runtime.log_file=x.log").base.spec({}).to_json(),
    "parameters": [p.key for p in searched.parameters],
    "size": searched.size() // plain.size(),
    "trials": {
        "plain": trial({}),
        "tile": trial({"quant.tile": 4}),
        "tile_order": trial({"quant.tile_order": "columns"}),
        "one_tile": trial({"quant.tile": 1}),
        "one_tile_with_gap": trial({"quant.tile": 1, "quant.tile_gap": 2}),
        "guidance": trial({"policy.guidance": 0.5}),
        "clock": trial({"runtime.clock": "slow"}),
    },
    "packs": {
        "plain": pack(),
        "tile": pack(tile=4),
        "tile_order": pack(tile_order="columns"),
        "one_tile": pack(tile=1),
        "one_tile_with_gap": pack(tile=1, tile_gap=2),
    },
    "refusals": {words[0]: refusal(*words) for words in WORDS},
}))
"""
# Words of a command → what its refusal says.
REFUSALS = {
    ("quant.tile=10",): "quant.tile must be 1 to 9, got 10",
    ("quant.tilee=1",): "there is no key 'quant.tilee' (did you mean 'quant.tile'?)",
    ("+space.quant.tile=int(interval(1, 12))",): (
        "space key quant.tile must be 1 to 9, got 12 in 'int(interval(1, 12))'"
    ),
    ("+space.quant.tile_order=choice(rows, diagonal)",): (
        "space key quant.tile_order must be one of rows, columns, got 'diagonal' in "
        "'choice(rows, diagonal)'"
    ),
    ("+space.quant.tile_gap=int(interval(0, 1000000000))",): (
        "space key quant.tile_gap must be one of 0, 2, got 1 in 'int(interval(0, 1000000000))'"
    ),
    ("+space.policy.guidance=interval(-1.0, 2.0)",): (
        "space key policy.guidance must be more than -1 and at most 2, got -1.0 in "
        "'interval(-1.0, 2.0)'"
    ),
    ("runtime.clock=medium",): "runtime.clock must be one of fast, slow, got 'medium'",
    ("+plans.mine={policy.guidance: 2.5}", "enqueue=[mine]"): (
        "plan mine: policy.guidance must be more than -1 and at most 2, got 2.5"
    ),
    ("+space.quant.tile=choice(1, 2)", "+when.quant.tile=runtime.clock == stopped"): (
        "when.quant.tile: runtime.clock must be one of fast, slow, got 'stopped'"
    ),
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package that declares more settings."""
    folder = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, folder / "duqsweep", copy_function=os.symlink, ignore=ignored)
    (folder / "conf").symlink_to(conf_dir())
    text = (PACKAGE / "spec.py").read_text(encoding="utf-8")
    for line, declaration in DECLARATIONS.items():
        assert text.count(line) == 1
        text = text.replace(line, declaration + line)
    (folder / "duqsweep" / "spec.py").unlink()
    (folder / "duqsweep" / "spec.py").write_text(text, encoding="utf-8")
    return folder


def run(checkout: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def answers(checkout: Path) -> dict[str, Any]:
    answered: dict[str, Any] = json.loads(
        run(checkout, "-c", f"WORDS = {[*REFUSALS]!r}\n{QUESTIONS}")
    )
    return answered


def test_the_configuration_has_it_with_its_default(answers):
    assert {key: answers["base"][key] for key in ("quant.tile", "policy.guidance")} == {
        "quant.tile": 3,
        "policy.guidance": 0.0,
    }
    assert answers["base"]["runtime.clock"] == "fast"
    assert "runtime.log_file" not in answers["base"]  # all trials share it


def test_an_override_reaches_the_specification_and_a_path_is_made_absolute(answers, checkout):
    assert answers["overridden"]["quant"]["tile"] == 5
    assert answers["overridden"]["runtime"]["log_file"] == str(checkout / "x.log")


def test_a_space_searches_it(answers):
    assert answers["parameters"][-2:] == ["quant.tile", "runtime.clock"]
    assert answers["size"] == 9 * 2


def test_the_trials_file_holds_it(answers):
    assert answers["trials"]["tile"]["spec"]["quant"]["tile"] == 4
    assert answers["trials"]["guidance"]["spec"]["policy"]["guidance"] == 0.5
    assert answers["trials"]["clock"]["spec"]["runtime"]["clock"] == "slow"


def test_the_fingerprint_changes_with_it_where_it_has_an_effect(answers):
    prints = {name: trial["fingerprint"] for name, trial in answers["trials"].items()}
    assert prints.pop("one_tile_with_gap") == prints["one_tile"]
    assert len(set(prints.values())) == len(prints)


def test_the_packs_name_changes_with_it_where_it_is_declared_so(answers):
    packs = answers["packs"]
    assert packs["tile_order"] == packs["plain"]
    assert packs["one_tile_with_gap"] == packs["one_tile"]
    assert len({packs["plain"], packs["tile"], packs["one_tile"]}) == 3


@pytest.mark.parametrize("words", REFUSALS, ids=lambda words: words[0])
def test_an_impossible_value_is_refused(answers, words):
    assert answers["refusals"][words[0]] == REFUSALS[words]


def test_the_list_of_settings_explains_it(checkout):
    listed = run(checkout, "-m", "duqsweep", "explain", "--settings").splitlines()
    (line,) = (line for line in listed if line.startswith("quant.tile "))
    assert " ".join(line.split()) == "quant.tile 1 to 9 3 channels per tile"
    (line,) = (line for line in listed if line.startswith("runtime.log_file "))
    assert "file of the log" in line
