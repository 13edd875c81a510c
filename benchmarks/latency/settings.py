"""The quantization settings of the measured forms."""

from __future__ import annotations

import re
from dataclasses import replace

from duqsweep.checkpoint.sizes import EXPERT, LLM, VISION
from duqsweep.spec import LayerRule, QuantSpec


def rule(root: str, weight_bits: int) -> LayerRule:
    """All linears of one part, 8-bit activations."""
    return LayerRule(include=re.escape(root), weight_bits=weight_bits, act_bits=8)


EXPERT_W4A8 = QuantSpec(rules=(rule(EXPERT, 4),))
EXPERT_W8A8 = QuantSpec(rules=(rule(EXPERT, 8),))
# The image encoder is compute-bound: int8 for weights and activations.
POLICY_W8A8 = QuantSpec(rules=(rule(EXPERT, 8), rule(LLM, 8), rule(VISION, 8)))
# The same in e4m3; without a rotation, as others do it.
POLICY_FP8 = replace(POLICY_W8A8, number_format="e4m3")
POLICY_FP8_PLAIN = replace(POLICY_FP8, rotation="none", permutation="none")
# Without the image encoder.
LLM_DIT_W8A8 = QuantSpec(rules=(rule(EXPERT, 8), rule(LLM, 8)))
# For each part what helps most: faster products or fewer bytes.
LLM_W8A8_DIT_W4A8 = QuantSpec(rules=(rule(EXPERT, 4), rule(LLM, 8)))
# The same with the image encoder.
W8A8_DIT_W4A8 = QuantSpec(rules=(rule(EXPERT, 4), rule(LLM, 8), rule(VISION, 8)))
# Fewer bytes in the language model.
LLM_DIT_W4A8 = QuantSpec(rules=(rule(EXPERT, 4), rule(LLM, 4)))
POLICY_W4A8 = QuantSpec(rules=(rule(EXPERT, 4), rule(LLM, 4), rule(VISION, 8)))
# Launches what the prototype launched: one product per block, outputs rotated back.
SEED_REFERENCE = replace(EXPERT_W4A8, row_rotation=True)
SEED_LOOP = replace(SEED_REFERENCE, kernel="loop")
