"""Quantization settings that forms are measured with."""

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
# The image encoder is bound by arithmetic, not by its weights: 8 bits in both.
POLICY_W8A8 = QuantSpec(rules=(rule(EXPERT, 8), rule(LLM, 8), rule(VISION, 8)))
# Its products are so small that int8 saves little there.
LLM_DIT_W8A8 = QuantSpec(rules=(rule(EXPERT, 8), rule(LLM, 8)))
# What each part gains most from: faster products here, fewer bytes there.
LLM_W8A8_DIT_W4A8 = QuantSpec(rules=(rule(EXPERT, 4), rule(LLM, 8)))
POLICY_W4A8 = QuantSpec(rules=(rule(EXPERT, 4), rule(LLM, 4), rule(VISION, 8)))
# Launches what the seed launched: a product a block, outputs rotated back.
SEED_REFERENCE = replace(EXPERT_W4A8, row_rotation=True)
SEED_LOOP = replace(SEED_REFERENCE, kernel="loop")
