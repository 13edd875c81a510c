"""All forms, in the order in which they are measured until time runs out."""

from latency import kernel_forms as kernel_forms
from latency import plain_forms as plain_forms

# The most important forms: measured first, at all horizons.
TELLING = (
    "expert_w4a8_fused_graph",
    "expert_bf16_fused_graph",
    "expert_bf16_merged_graph",
    "policy_w4a8_fused_graph",
    "policy_bf16_fused_graph",
    "expert_w8a8_fused_graph",
    "expert_w4a8_layered_graph",
    "expert_w8a8_layered_graph",
    "policy_w8a8_fused_graph",
    "policy_w8a8_llm_dit_fused_graph",
    "policy_w8a8_llm_w4a8_dit_fused_graph",
    "policy_w8a8_w4a8_dit_fused_graph",
    "policy_w4a8_llm_dit_fused_graph",
    "expert_w4a8_fake_graph",
    "policy_bf16_merged_graph",
    "expert_loop",
    "prefix_w8a8_fused_graph",
    "prefix_bf16_merged_graph",
    "vision_w8a8_fused_graph",
    "vision_bf16_merged_graph",
    "prefix_w4a8_fused_graph",
    "policy_fp8_fused_graph",
    "policy_fp8_plain_fused_graph",
    "prefix_fp8_compiled_graph",
    "prefix_fp8_plain_compiled_graph",
    "expert_fp8_fused_graph",
)
FURTHER = (
    "policy_w4a8_fake_graph",
    "expert_bf16_graph",
    "expert_fake_graph",
    "expert_bf16_eager",
    "expert_fake_eager",
    "policy_bf16_eager",
    "expert_bf16_compile",
    "expert_fake_compile",
)
