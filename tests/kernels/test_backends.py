"""Which backend runs an expert, and the reasons why earlier ones do not."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

import pytest
import torch
from test_forms import FORMS, SIZES, frozen
from test_forms import inputs as inputs
from test_forms import policy as policy
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.inference.backends import EXPERT_BACKENDS, build_expert
from duqsweep.inference.compiled_expert import CompiledExpert
from duqsweep.inference.merged_expert import ExpertSource
from duqsweep.inference.prefix import FusedPrefix
from duqsweep.inference.triton_expert import TritonExpert
from duqsweep.kernels import e4m3_linear
from duqsweep.policy.pi05 import Pi05
from duqsweep.spec import LayerRule, QuantSpec

Inputs = tuple[Tensor, Tensor, Tensor]


def source_of(policy: Pi05, inputs: Inputs, quant: QuantSpec) -> ExpertSource:
    return ExpertSource(frozen(policy, inputs, quant), num_steps=2)


@pytest.mark.parametrize(
    ("form", "kind", "why"),
    [
        (
            "unquantized",
            TritonExpert,
            "not on cuda, because none of its products multiplies integers or numbers of e4m3",
        ),
        ("int8", TritonExpert, "not on cuda, because the policy is in float32, not bfloat16"),
        ("w4a8, with a wider layer", TritonExpert, "because its products have several formats"),
        (
            "w4a8 in the MLPs of the expert",
            TritonExpert,
            "because 4 of 8 products do not multiply",
        ),
        ("fp8", CompiledExpert, "not on triton, because .* and some are e4m3"),
        (
            "fp8",
            CompiledExpert,
            "not on cuda, because the policy is in float32, not bfloat16",
        ),
        ("fp8, not to be merged", CompiledExpert, "runs on backend torch"),
        ("fake", CompiledExpert, "not on triton, because the kernels multiply what is stored, and"),
        ("fake, not to be merged", CompiledExpert, "because a layer has settings that"),
    ],
)
@torch.no_grad()
def test_the_first_supporting_backend_is_used_and_the_log_gives_the_others_reasons(
    policy: Pi05,
    inputs: Inputs,
    caplog: pytest.LogCaptureFixture,
    form: str,
    kind: type,
    why: str,
) -> None:
    with caplog.at_level(logging.INFO):
        assert type(build_expert(source_of(policy, inputs, FORMS[form]))) is kind
    assert re.search(why, caplog.text)


@torch.no_grad()
def test_integers_that_no_backend_takes_are_an_error_with_every_reason(
    policy: Pi05, inputs: Inputs
) -> None:
    quant = QuantSpec(rules=(LayerRule(r"gemma_expert.*q_proj", 8, 8),), kernel="int8")
    why = "not on cuda.*some are quantized and some are not.*not on triton.*not on torch.*integers"
    with pytest.raises(EvaluationError, match=why):
        build_expert(source_of(policy, inputs, quant))


@torch.no_grad()
def test_an_older_gpu_has_no_backend_for_e4m3(
    policy: Pi05, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(policy, inputs, FORMS["fp8"])
    monkeypatch.setattr(e4m3_linear, "device_reason", lambda _: "an A100 has no such products")
    with pytest.raises(EvaluationError, match="not on torch, because an A100 has no such"):
        build_expert(source)


def test_an_expert_of_other_sizes_is_left_to_the_compiler() -> None:
    stack = replace(SIZES.expert, width=48)
    module = Pi05(replace(SIZES, expert=stack, llm=replace(SIZES.llm, width=48)))
    source = ExpertSource(module, num_steps=1)
    reasons = {backend.name: backend.unsupported_reason(source) for backend in EXPERT_BACKENDS}
    assert reasons["triton"] is not None
    assert "width that is a power of two >= 32, got 48" in reasons["triton"]
    assert reasons["torch"] is None


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_compiling_leaves_values_tensors_and_strides_as_they_were(
    policy: Pi05, inputs: Inputs, form: str
) -> None:
    module = frozen(policy, inputs, FORMS[form])
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    layout = {
        name: (tensor.data_ptr(), tensor.shape, tensor.stride()) for name, tensor in named.items()
    }
    values = {name: tensor.clone() for name, tensor in named.items()}
    FusedPrefix(module)
    build_expert(ExpertSource(module, num_steps=2))
    assert {
        name: (tensor.data_ptr(), tensor.shape, tensor.stride())
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    } == layout
    assert all(torch.equal(tensor, values[name]) for name, tensor in named.items())
