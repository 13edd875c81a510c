"""Times one policy call in many forms, from the seed's loop to one CUDA graph: a table and JSON.

Full-size pi0.5 with random weights in bf16 on a GPU, the embedded policy's sizes in fp32 on a CPU.
Batch 1, two cameras, no padded token. Graphs are a GPU's; on a CPU those forms are compiled only.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import platform
import re
import signal
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from duqsweep.control.explain.cost import CAMERAS_SEEN, PROMPT_TOKENS, call_costs
from duqsweep.files import write_json
from duqsweep.policy.fused_expert import FusedExpert
from duqsweep.policy.fused_prefix import FusedPrefix
from duqsweep.policy.pi05 import Pi05, PrefixCache, euler_times
from duqsweep.policy.sizes import EXPERT, linear_layers, sizes_of
from duqsweep.quant.calibrate import calibrate
from duqsweep.quant.freeze import freeze
from duqsweep.quant.merged import MergedLinears
from duqsweep.quant.select import select_layers
from duqsweep.spec import LayerRule, QuantSpec

W4A8 = QuantSpec(rules=(LayerRule(include=re.escape(EXPERT), weight_bits=4, act_bits=8),))
LOOP = replace(W4A8, row_rotation=True, kernel="loop")  # launches what the seed launched

Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Row:
    """One form's measurement."""

    form: str
    ms: float  # median of a call
    p95_ms: float
    calls: int
    floor_ms: float  # modelled: the larger of bytes and FLOPs over the ceilings, part by part
    error: float | None  # relative to the eager form with the same weights
    build_s: float  # making, compiling, capturing and warming up
    ratio_to_seed_loop: float | None = None  # how many times faster than the loop


@dataclass(frozen=True)
class Ceilings:
    """What the machine can do at best, measured."""

    copy_tb_s: float  # bytes read plus bytes written
    matmul_tflop_s: float


class Bench:
    """The policy under test and what its forms share."""

    def __init__(self, policy: str, device: str, num_steps: int) -> None:
        self.policy, self.device, self.num_steps = policy, device, num_steps
        self.sizes = sizes_of(policy)
        self.dtype = torch.bfloat16 if device == "cuda" else torch.float32
        torch.manual_seed(0)
        torch.set_default_dtype(self.dtype)
        with torch.device(device):
            self.module = Pi05(self.sizes).eval()
        torch.set_default_dtype(torch.float32)
        px, cameras = self.sizes.vision.image_px, min(CAMERAS_SEEN, self.sizes.cameras)
        images = torch.rand(1, cameras, 3, px, px, device=device) * 2 - 1
        self.images = images.to(self.dtype)
        words = (1, PROMPT_TOKENS[policy])
        self.prompt = torch.randint(self.sizes.vocabulary, words, device=device)
        noise = (self.sizes.horizon, self.sizes.action_dim)
        self.noise = torch.randn(noise, device=device)
        self.modulations = self.module.modulation(euler_times(num_steps).to(device)).unbind(1)

    @cached_property
    def cache(self) -> PrefixCache:
        """The prefix that the expert's forms read."""
        return self.module.prefix(self.module.encode_images(self.images), self.prompt)

    @cached_property
    def quantized(self) -> Pi05:
        """W4A8 on every linear of the expert, kernel `fake`."""
        return self._freeze(W4A8)

    def loop(self) -> Pi05:
        """The same as the seed ran it."""
        return self._freeze(LOOP)

    def follow(self, module: Pi05, cache: PrefixCache) -> Tensor:
        """All denoising steps, one velocity after the other."""
        actions = self.noise[None]
        for modulation in self.modulations:
            velocity = module.velocity(actions.to(self.dtype), cache, modulation[:, None])
            actions = actions - velocity.float() / self.num_steps
        return actions[0]

    def copy_of(self, module: Pi05) -> Pi05:
        """New modules on the same tensors, free to be compiled or quantized."""
        tensors = [*module.parameters(), *module.buffers()]
        return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})

    def sync(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _freeze(self, quant: QuantSpec) -> Pi05:
        module = self.copy_of(self.module)
        bits = select_layers(quant, linear_layers(self.sizes))

        def run() -> None:
            self.follow(module, self.cache)

        stats = calibrate(module, bits, quant, run)
        freeze(module, bits, quant, stats, None, "random")
        return module


def graphed(bench: Bench, call: Call) -> Call:
    """The call captured in one CUDA graph; on a CPU the call itself."""
    if bench.device != "cuda":
        return call
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(2):
            call()
    bench.sync()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def stepwise(bench: Bench, module: Pi05, compiled: bool) -> Call:
    """Velocity after velocity; compiled layer by layer."""
    if compiled:
        module = bench.copy_of(module)
        for layer in module.expert.layers:
            layer.compile(fullgraph=True, dynamic=False)
    return lambda: bench.follow(module, bench.cache)


def fused(bench: Bench, module: Pi05, linears: MergedLinears | None) -> Call:
    """The merged expert, compiled."""
    expert = FusedExpert(module, bench.num_steps, linears)
    expert.compile()
    prepared = expert.prepare(bench.cache)
    return lambda: expert.denoise(bench.noise, prepared)


def fused_policy(bench: Bench, module: Pi05, linears: MergedLinears | None) -> Call:
    """Merged image encoder, prefix and expert, compiled."""
    prefix, expert = FusedPrefix(module), FusedExpert(module, bench.num_steps, linears)
    prefix.compile()
    expert.compile()
    images, prompt = bench.images[0], bench.prompt[0]
    return lambda: expert.denoise(bench.noise, expert.prepare(prefix(images, prompt)))


def fused_parts(bench: Bench, part: str) -> Call:
    """Merged image encoder, or image encoder and prefix, compiled."""
    prefix = FusedPrefix(bench.module)
    prefix.compile()
    images, prompt = bench.images[0], bench.prompt[0]
    if part == "vision":
        return lambda: prefix.encode_images(images)
    return lambda: prefix(images, prompt)[-1][0]


def eager_policy(bench: Bench) -> Call:
    """The policy as it is."""
    module = bench.module

    def call() -> Tensor:
        cache = module.prefix(module.encode_images(bench.images), bench.prompt)
        return bench.follow(module, cache)

    return call


def forms(bench: Bench) -> dict[str, Callable[[], Call]]:
    """Name → what makes the call. Those that tell most come first, in case time runs out."""
    plain, merged = bench.module, MergedLinears()
    return {
        "expert_bf16_eager": lambda: stepwise(bench, plain, compiled=False),
        "expert_bf16_merged_graph": lambda: graphed(bench, fused(bench, plain, None)),
        "expert_fake_eager": lambda: stepwise(bench, bench.quantized, compiled=False),
        "expert_w4a8_fake_graph": lambda: graphed(bench, fused(bench, bench.quantized, merged)),
        "policy_bf16_eager": lambda: eager_policy(bench),
        "policy_bf16_merged_graph": lambda: graphed(bench, fused_policy(bench, plain, None)),
        "policy_w4a8_fake_graph": lambda: graphed(
            bench, fused_policy(bench, bench.quantized, merged)
        ),
        "vision_bf16_merged_graph": lambda: graphed(bench, fused_parts(bench, "vision")),
        "prefix_bf16_merged_graph": lambda: graphed(bench, fused_parts(bench, "prefix")),
        "expert_loop": lambda: stepwise(bench, bench.loop(), compiled=False),
        "expert_bf16_compile": lambda: stepwise(bench, plain, compiled=True),
        "expert_bf16_graph": lambda: graphed(bench, stepwise(bench, plain, compiled=True)),
        "expert_fake_compile": lambda: stepwise(bench, bench.quantized, compiled=True),
        "expert_fake_graph": lambda: graphed(
            bench, stepwise(bench, bench.quantized, compiled=True)
        ),
    }


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the block once it has run too long."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


@torch.no_grad()
def measure(bench: Bench, form: str, make: Callable[[], Call], seconds: float) -> Row:
    """Build a form, check its result and time its calls for about `seconds`."""
    start = perf_counter()
    call = make()
    result = call().clone()
    bench.sync()
    first = perf_counter() - start
    series = []
    if first < 60:
        for _ in range(3):
            call()
    build_s = perf_counter() - start
    begun = perf_counter()
    while len(series) < 2 or (perf_counter() - begun < seconds and len(series) < 300):
        bench.sync()
        tick = perf_counter()
        call()
        bench.sync()
        series.append(1e3 * (perf_counter() - tick))
    ranked = sorted(series)
    return Row(
        form=form,
        ms=statistics.median(series),
        p95_ms=ranked[math.ceil(0.95 * len(ranked)) - 1],
        calls=len(series),
        floor_ms=math.nan,
        error=reference_error(bench, form, result),
        build_s=build_s,
    )


def reference_error(bench: Bench, form: str, result: Tensor) -> float | None:
    """‖result - eager‖ / ‖eager‖, both as moves from the noise; None for parts of a policy."""
    if not form.startswith(("expert", "policy")) or form == "expert_loop":
        return None
    module = bench.quantized if "fake" in form else bench.module
    expected = bench.follow(module, bench.cache) - bench.noise
    return float((result - bench.noise - expected).norm() / expected.norm())


@torch.no_grad()
def ceilings(bench: Bench) -> Ceilings:
    """A large copy and a large matrix product, the best of five."""
    gpu = bench.device == "cuda"
    source = torch.rand(2**30 if gpu else 2**25, device=bench.device)
    target = torch.empty_like(source)
    side = 8192 if gpu else 1024
    left, right = torch.randn(2, side, side, device=bench.device).to(bench.dtype)
    copying, multiplying = [], []
    for _ in range(6):
        for times, work in (
            (copying, lambda: target.copy_(source)),
            (multiplying, lambda: left @ right),
        ):
            bench.sync()
            tick = perf_counter()
            work()
            bench.sync()
            times.append(perf_counter() - tick)
    moved = 2 * source.numel() * source.element_size()
    return Ceilings(moved / min(copying) / 1e12, 2 * side**3 / min(multiplying) / 1e12)


def floor_ms(bench: Bench, form: str, best: Ceilings) -> float:
    """Modelled: each part reads its full-precision weights once a forward and does its FLOPs."""
    parts = {"vision": {"vision"}, "prefix": {"vision", "llm"}, "policy": {"vision", "llm", "dit"}}
    chosen = parts.get(form.partition("_")[0], {"dit"})
    costs = call_costs(bench.policy, bench.sizes, bench.num_steps, QuantSpec())
    return sum(
        1e3 * max(cost.full_bytes / best.copy_tb_s / 1e12, cost.flops / best.matmul_tflop_s / 1e12)
        for cost in costs
        if cost.part in chosen
    )


def name_on(bench: Bench, form: str) -> str:
    """A form's name on this device."""
    if bench.device == "cuda":
        return form
    return form.replace("bf16", "fp32").replace("_graph", "_compile_only")


def line(row: Row) -> str:
    """One row of the table."""
    error = "" if row.error is None else f"{row.error:.1e}"
    ratio = "" if row.ratio_to_seed_loop is None else f"{row.ratio_to_seed_loop:,.1f}"
    return (
        f"{row.form:34} {row.ms:10.3f} {row.p95_ms:10.3f} {row.calls:6} {row.floor_ms:9.3f} "
        f"{row.ms / row.floor_ms:7.1f} {error:>8} {ratio:>9} {row.build_s:8.1f}"
    )


HEAD = (
    f"{'form':34} {'ms':>10} {'p95 ms':>10} {'calls':>6} {'floor ms':>9} {'×floor':>7} "
    f"{'error':>8} {'×loop':>9} {'build s':>8}"
)


def machine(bench: Bench, best: Ceilings) -> dict[str, object]:
    """What was measured on."""
    gpu = torch.cuda.get_device_name() if bench.device == "cuda" else None
    return {
        "gpu": gpu,
        "cpu": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "policy": bench.policy,
        "dtype": str(bench.dtype).removeprefix("torch."),
        "num_steps": bench.num_steps,
        "horizon": bench.sizes.horizon,
        **asdict(best),
    }


def main() -> int:
    """Run the forms, print and write the table; exit code 1 when a form failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, choices=("cpu", "cuda"))
    parser.add_argument("--policy", help="default: pi05_libero on a GPU, embedded on a CPU")
    parser.add_argument("--forms", default="", help="regex; default: all")
    parser.add_argument("--num-steps", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0, help="of timed calls a form")
    parser.add_argument("--limit", type=int, default=120, help="seconds a form may take")
    parser.add_argument("--total", type=float, default=math.inf, help="seconds; then no new form")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    begun = perf_counter()
    policy = options.policy or ("pi05_libero" if options.device == "cuda" else "embedded")
    with torch.no_grad():
        bench = Bench(policy, options.device, options.num_steps)
    best = ceilings(bench)
    facts = machine(bench, best)
    print(json.dumps(facts), flush=True)
    print(HEAD, flush=True)
    rows: list[Row] = []
    failed = []
    for form, make in forms(bench).items():
        if not re.search(options.forms, form):
            continue
        name = name_on(bench, form)
        if perf_counter() - begun > options.total:
            failed.append(f"{name}: no time left")
            continue
        try:
            with time_limit(options.limit):
                row = measure(bench, form, make, options.seconds)
        except Exception as error:  # a form that fails must not cost the others
            failed.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")
            print(failed[-1], flush=True)
            continue
        rows.append(replace(row, form=name, floor_ms=floor_ms(bench, form, best)))
        print(line(rows[-1]), flush=True)
        if options.out:
            write_json(options.out, report(facts, rows))
    final = report(facts, rows)
    print("\n" + HEAD)
    for row in with_ratios(rows):
        print(line(row))
    if options.out:
        write_json(options.out, final)
    print("\n".join(failed))
    return 1 if failed else 0


def with_ratios(rows: list[Row]) -> list[Row]:
    """The expert's rows with their ratio to the loop, once that is measured."""
    loop = next((row.ms for row in rows if row.form == "expert_loop"), None)
    return [
        replace(row, ratio_to_seed_loop=loop / row.ms)
        if loop is not None and row.form.startswith("expert")
        else row
        for row in rows
    ]


def report(facts: dict[str, object], rows: list[Row]) -> dict[str, object]:
    """The JSON file's content."""
    return {"machine": facts, "rows": [asdict(row) for row in with_ratios(rows)]}


if __name__ == "__main__":
    sys.exit(main())
