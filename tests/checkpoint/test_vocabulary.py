"""The embedded policy is not sent to a suite whose instructions it cannot read."""

import json
import shutil
from functools import cache
from pathlib import Path

import pytest

from duqsweep.checkpoint.locate import SHIPPED
from duqsweep.checkpoint.vocabulary import check_words
from duqsweep.control.config.sweep_config import compose
from duqsweep.envs.assets import OFFICIAL_TASKS, instructions
from duqsweep.errors import ConfigError
from duqsweep.spec import PolicySpec

EMBEDDED = PolicySpec(name="embedded")


@cache
def told(suite: str) -> list[str]:
    return instructions(compose(["+sweep=smoke", f"suite={suite}"]).base.suite)


def test_it_reads_its_own_suite_and_whatever_is_in_a_recording():
    check_words(EMBEDDED, "duq_mini", told("duq_mini"))
    check_words(EMBEDDED, "recorded", told("recorded"))


@pytest.mark.parametrize("suite", OFFICIAL_TASKS)
def test_it_is_refused_for_the_official_suites_with_the_words_that_it_lacks(suite):
    with pytest.raises(ConfigError, match=rf"tasks of {suite}: it does not know \w+.*pi05_libero"):
        check_words(EMBEDDED, suite, told(suite))


@pytest.mark.parametrize("suite", OFFICIAL_TASKS)
def test_a_pi05_reads_anything(suite):
    check_words(PolicySpec(name="pi05_libero"), suite, told(suite))


def test_an_own_checkpoint_brings_its_own_words_and_its_own_length(tmp_path: Path):
    shutil.copytree(SHIPPED, tmp_path / "own")
    config = json.loads((tmp_path / "own" / "config.json").read_text())
    config["words"] += ["bowl", "stove"]
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    own = PolicySpec(name="embedded", checkpoint=str(tmp_path / "own"))
    check_words(own, "libero_goal", ["Put the bowl on the stove"])
    with pytest.raises(ConfigError, match="reads 11 words, and an instruction has 12"):
        check_words(own, "libero_goal", ["put " * 12])
