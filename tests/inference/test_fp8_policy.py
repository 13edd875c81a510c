"""A whole policy in e4m3: compiled on a GPU in one CUDA graph, and its traceable parts anywhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from duqsweep.checkpoint.sizes import linear_layers
from duqsweep.inference.compile import compile_policy
from duqsweep.inference.e4m3_products import E4m3Product
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
def test_a_compiled_policy_multiplies_e4m3_in_one_graph(
    tmp_path_factory: pytest.TempPathFactory, rotation: str
) -> None:
    folder = tmp_path_factory.mktemp("pi05")
    sizes = small_sizes()
    write_random(folder, RandomPi05(sizes))
    policy_spec = PolicySpec("pi05_libero", str(folder), num_steps=3)
    policy = load_policy(policy_spec, "cuda")
    quant = QuantSpec(RULES, kernel="fp8", rotation=rotation)  # type: ignore[arg-type]
    bits = select_layers(quant, linear_layers(sizes))
    px = sizes.vision.image_px
    pixels = torch.rand(2, 3, px, px, device="cuda") * 2 - 1
    tokens = torch.arange(5, device="cuda")
    noise = torch.randn(sizes.horizon, sizes.action_dim)
    exact = policy.call.run(pixels, tokens, noise).clone()
    stats = calibrate(policy.module, bits, quant, lambda: policy.call.run(pixels, tokens, noise))
    freeze(policy.module, bits, quant, stats, None, "random")
    eager = policy.call.run(pixels, tokens, noise).clone()
    fast = compile_policy(policy)
    actions = fast.call.run(pixels, tokens, noise)
    assert (actions - eager).norm() <= 0.3 * (eager - exact).norm()
    assert (eager - exact).norm() <= 0.2 * (exact - noise.cuda()).norm()
    spec = TrialSpec(policy_spec, quant, RuntimeSpec(), SUITE)
    check_launches(spec, bits, fast.call.launches(pixels, tokens, noise))
    codes = [t for t in fast.weights() if t.dtype == torch.float8_e4m3fn]
    assert sum(t.numel() for t in codes) > 0
