"""The policy that comes with the package."""

from __future__ import annotations

import numpy as np

from duqsweep.checkpoint.locate import SHIPPED, WEIGHTS, check_checkpoint
from duqsweep.checkpoint.sizes import sizes_of
from duqsweep.control.explain.cost import PROMPT_TOKENS
from duqsweep.policy.load import load_policy
from duqsweep.policy.preprocess import text_tokens
from duqsweep.seams import Observation
from duqsweep.spec import PolicySpec

INSTRUCTIONS = (
    "pick up the red cube and place it in the tray",
    "pick up the blue cube and place it in the tray",
    "push the plate onto the green zone",
    "stack the red cube on the green block",
    "put the yellow peg in the cup",
    "move the red cube to either zone",
)


def test_it_loads_has_the_announced_sizes_and_acts() -> None:
    check_checkpoint(PolicySpec("embedded"))
    policy = load_policy(PolicySpec("embedded", num_steps=2), "cpu")
    assert policy.preprocessing.sizes == sizes_of("embedded")
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    seen = Observation(
        images={"agentview": pixels, "wrist": pixels},
        eef_pos=np.array([-0.1, 0.0, 1.1]),
        eef_quat=np.array([1.0, 0.0, 0.0, 0.0]),
        gripper_qpos=np.array([0.04, -0.04]),
        instruction=INSTRUCTIONS[0],
    )
    actions = policy.act(seen, np.zeros((policy.horizon, policy.action_dim), dtype=np.float32))
    assert actions.shape == (10, 7)
    assert np.isfinite(actions).all()
    assert policy.reads(seen) == (2, PROMPT_TOKENS["embedded"])  # what `explain` counts


def test_it_knows_every_word_of_its_suite() -> None:
    config = load_policy(PolicySpec("embedded"), "cpu").preprocessing.config
    tokens = {tuple(text_tokens(text, config).tolist()) for text in INSTRUCTIONS}
    assert len(tokens) == len(INSTRUCTIONS)


def test_its_weights_fit_sixteen_megabytes() -> None:
    assert (SHIPPED / WEIGHTS).stat().st_size <= 16_000_000
