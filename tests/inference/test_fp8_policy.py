"""A whole policy in e4m3: compiled on a GPU in one CUDA graph, and its traceable parts anywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pi05_inputs import seen
from torch import Tensor

from duqsweep.checkpoint.sizes import linear_layers
from duqsweep.inference.compile import compile_policy
from duqsweep.inference.float_products import E4m3Product
from duqsweep.kernels.e4m3_linear import CAPABILITY
from duqsweep.kernels.projection_weights import ProjectionWeights
from duqsweep.policy.load import load_policy
from duqsweep.policy.random_pi05 import RandomPi05, small_sizes, write_random
from duqsweep.quant.calibrate import calibrate
from duqsweep.quant.freeze import freeze
from duqsweep.quant.select import select_layers
from duqsweep.spec import LayerRule, PolicySpec, QuantSpec, RuntimeSpec, SuiteSpec, TrialSpec
from duqsweep.worker.launch_check import check_launches

HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() >= CAPABILITY
RULES = (LayerRule(r"_proj$|fc[12]$", 8, 8),)
SUITE = SuiteSpec("recorded", 6, 2, 16, 10, 10, 0, 5)


def test_the_compiler_traces_a_product_as_one_operator() -> None:
    torch.manual_seed(0)
    codes = torch.randn(32, 48).to(torch.float8_e4m3fn)
    order = torch.randperm(48).int()
    weights = ProjectionWeights(codes, torch.rand(32, 1), torch.randn(32), order, 16, 8)
    product = E4m3Product(weights)
    seen: list[str] = []

    def keep(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph

    x = torch.randn(3, 48)
    made = torch.compile(product, backend=keep, fullgraph=True)(x)
    assert torch.equal(made, product(x))
    assert [name for name in seen if "e4m3_linear" in name]


@pytest.mark.gpu
@pytest.mark.skipif(not HOPPER, reason="needs a Hopper GPU")
@pytest.mark.parametrize("rotation", ["hadamard", "none"])
def test_a_compiled_policy_multiplies_e4m3(
    tmp_path_factory: pytest.TempPathFactory, rotation: str
) -> None:
    folder = tmp_path_factory.mktemp("pi05")
    sizes = small_sizes()
    write_random(folder, RandomPi05(sizes))
    policy_spec = PolicySpec("pi05_libero", str(folder), num_steps=3)
    policy = load_policy(policy_spec, "cuda")
    quant = QuantSpec(RULES, kernel="fp8", rotation=rotation)  # type: ignore[arg-type]
    bits = select_layers(quant, linear_layers(sizes))
    noise = np.random.default_rng(0).standard_normal((sizes.horizon, sizes.action_dim))
    given = (seen(), noise.astype(np.float32))
    exact = policy.act_normalised(*given)

    def run() -> None:
        policy.act_normalised(*given)

    stats = calibrate(policy.module, bits, quant, run)
    freeze(policy.module, bits, quant, stats, None, "random")
    eager = policy.act_normalised(*given)
    fast = compile_policy(policy)
    actions = fast.act_normalised(*given)
    moved = np.linalg.norm(exact - noise[:, :7])
    assert np.linalg.norm(actions - eager) <= 2e-2 * moved  # bf16 is rounded in other places
    assert np.linalg.norm(eager - exact) <= 0.1 * moved
    spec = TrialSpec(policy_spec, quant, RuntimeSpec(), SUITE)
    check_launches(spec, bits, fast.launches(*given))
    codes = [t for t in fast.weights() if t.dtype == torch.float8_e4m3fn]
    assert sum(t.numel() for t in codes) > 0
