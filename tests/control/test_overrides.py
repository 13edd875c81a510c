"""A setting on the command line takes effect, or it is refused."""

from __future__ import annotations

import pytest

from duqsweep.control.config.overrides import check_effect, given_settings
from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import compose
from duqsweep.errors import ConfigError


def check(*words: str) -> None:
    config = compose(words)
    check_effect(words, Space.from_config(config))


def test_only_settings_of_a_trial_are_looked_at():
    words = ["+sweep=smoke", "policy.num_steps=4", "++quant.act_bits=4", "budget.trials=3"]
    words += ["+quant.weight_bits.layers.3=8", "space.policy.num_steps=choice(1, 2)", "name=x=y"]
    assert list(given_settings(words)) == [
        "policy.num_steps",
        "quant.act_bits",
        "quant.weight_bits.layers.3",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["+sweep=seed_plans", "policy.num_steps=4"], "policy.num_steps=4 would change no trial"),
        (["+sweep=latency", "policy.num_steps=4"], "the space searches policy.num_steps and every"),
        (["+sweep=seed_plans", "quant.include=dit_mlp"], "every enqueued plan sets it .reference"),
        (["+sweep=latency", "enqueue=[]", "quant.block_size=32"], "the space searches quant.block"),
    ],
)
def test_a_setting_that_no_trial_would_have_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        check(*words)


@pytest.mark.parametrize(
    "words",
    [
        ["+sweep=latency", "quant.act_bits=4"],  # the space does not search it
        ["+sweep=latency", "quant.block_size=32"],  # the reference does not set it
        ["+sweep=seed_plans", "quant.smoothing=0.5"],  # no plan sets it
        # The loop has the base's.
        ["+sweep=latency", "quant.block_size=32", "when.quant.block_size=quant.kernel == fake"],
    ],
)
def test_a_setting_that_some_trial_has_is_taken(words):
    check(*words)
