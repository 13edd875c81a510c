"""Where the host's time goes in one call of a policy, from observation to actions.

    python benchmarks/host_work.py                      # full-size pi0.5 on a GPU, small on a CPU
    python benchmarks/host_work.py --picture-px 360 --state-in-prompt

Weights are random, batch 1, two cameras. "call" is one call as an evaluation makes it; "graphs" are
what it waits for in any case, timed alone on an idle GPU; "host" is the rest. Then comes a call
step by step, and last the steps of the host each alone: on a GPU the pixels are made by the first
graph, and the prompt while that runs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from latency.bench import Bench
from latency.machine import device_name
from latency.settings import LLM_DIT_W8A8, LLM_W8A8_DIT_W4A8
from latency.timeline import timeline

from duqsweep.checkpoint.io_spec import ACTIONS, CAMERAS, STATE_VALUES, IoSpec
from duqsweep.checkpoint.normalise import Affine
from duqsweep.checkpoint.tokenizer import NAMES, PromptTokenizer
from duqsweep.files import write_json
from duqsweep.inference.compile import compile_policy
from duqsweep.inference.compiled_policy import CompiledPolicy
from duqsweep.policy.frontend import CallInputs
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.policy.pi05_preprocess import Pi05Preprocessing
from duqsweep.policy.random_pi05 import train_tokenizer
from duqsweep.seams import Observation
from duqsweep.spec import Kernel, QuantSpec

if TYPE_CHECKING:
    from duqsweep.inference.graphed_call import GraphedCall  # needs Triton

FORMS: dict[str, tuple[QuantSpec, Kernel]] = {
    "bf16": (QuantSpec(), "fake"),
    "w8a8": (LLM_DIT_W8A8, "int8"),
    "llm_w8a8_dit_w4a8": (LLM_W8A8_DIT_W4A8, "w4a8"),
}
INSTRUCTION = "pick up the bowl and place it in the tray"
WARM_UPS = 5
ROUNDS_ON_GPU = 50


def build(options: argparse.Namespace, folder: Path) -> Pi05Policy:
    """pi0.5 with random weights, and the preprocessing of a checkpoint of openpi."""
    gpu = options.device == "cuda"
    bench = Bench("pi05_libero" if gpu else "embedded", options.device, options.num_steps, None)
    quant, kernel = FORMS[options.form]
    module = bench.frozen(replace(quant, kernel=kernel)) if quant.rules else bench.module
    sizes = replace(bench.sizes, prompt_tokens=200)
    train_tokenizer(folder / NAMES[0])
    spec = IoSpec(
        sizes=sizes,
        cameras=CAMERAS,
        antialias=True,
        state_in_prompt=options.state_in_prompt,
        state=Affine((0.0,) * STATE_VALUES, (1.0,) * STATE_VALUES),
        actions=Affine((0.0,) * ACTIONS, (1.0,) * ACTIONS),
    )
    tokenizer = PromptTokenizer(folder / NAMES[0], sizes.vocabulary, sizes.prompt_tokens)
    return Pi05Policy(module, Pi05Preprocessing(spec, tokenizer), options.num_steps)


def seen(side: int) -> Observation:
    """What a simulator shows."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    return Observation(
        images=dict(zip(CAMERAS, pixels, strict=True)),
        eef_pos=np.array([0.1, -0.2, 0.9]),
        eef_quat=np.array([0.98, 0.1, -0.1, 0.14]),
        gripper_qpos=np.array([0.03, -0.03]),
        instruction=INSTRUCTION,
    )


class Timer:
    """Medians of steps that are repeated on an idle device."""

    def __init__(self, synchronize: Callable[[], None], rounds: int) -> None:
        self.synchronize, self.rounds = synchronize, rounds
        self.found: dict[str, float] = {}

    def step(self, name: str, work: Callable[[], object], wait: bool = False) -> None:
        """Time `work`; where `wait`, until the device has done it."""
        times = []
        for number in range(self.rounds + WARM_UPS):
            self.synchronize()
            start = perf_counter()
            work()
            if wait:
                self.synchronize()
            if number >= WARM_UPS:
                times.append(1e3 * (perf_counter() - start))
        self.note(name, statistics.median(times))

    def note(self, name: str, ms: float) -> None:
        """Keep and print a time."""
        self.found[name] = ms
        print(f"{name:56} {ms:8.3f} ms", flush=True)


def time_host(timer: Timer, policy: Pi05Policy | CompiledPolicy, inputs: CallInputs) -> None:
    """The steps of the host, each alone, in their order."""
    preprocessing, stacked = policy.frontend.preprocessing, np.stack(inputs.pictures)
    timer.step("pictures: into one array", lambda: np.stack(inputs.pictures, out=stacked))
    pixels = torch.from_numpy(stacked).to(policy.frontend.device)
    timer.step("pixels: mirror, resize, scale", lambda: preprocessing.pixels(pixels), True)
    timer.step("prompt: state, text, tokens", inputs.prompt)
    done = policy.call.begin(inputs).wait()[:, :ACTIONS]
    timer.step("actions: denormalise, clip", lambda: preprocessing.actions(done))


def graphs_ms(call: GraphedCall, inputs: CallInputs) -> dict[str, float]:
    """The GPU's time of a call: of both graphs, one right after the other, and of the first."""
    seeing, acting = call.graphs(inputs)
    firsts, boths = [], []
    for _ in range(ROUNDS_ON_GPU):
        torch.cuda.synchronize()
        begin, middle, end = (torch.cuda.Event(enable_timing=True) for _ in range(3))
        begin.record()
        seeing.graph.replay()
        middle.record()
        acting.graph.replay()
        end.record()
        torch.cuda.synchronize()
        firsts.append(begin.elapsed_time(middle))
        boths.append(begin.elapsed_time(end))
    return {"graphs": statistics.median(boths), "image graph": statistics.median(firsts)}


@torch.no_grad()
def main() -> None:
    """Print the steps and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, choices=("cpu", "cuda"))
    parser.add_argument("--form", choices=tuple(FORMS), help="default: the fastest; on a CPU bf16")
    parser.add_argument("--num-steps", type=int, default=10)
    parser.add_argument("--picture-px", type=int, default=256, help="of the simulator's pictures")
    parser.add_argument("--state-in-prompt", action="store_true")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    gpu = options.device == "cuda"
    options.form = options.form or ("llm_w8a8_dit_w4a8" if gpu else "bf16")
    with tempfile.TemporaryDirectory() as folder:
        eager = build(options, Path(folder))
    policy = compile_policy(eager) if gpu else eager
    observation = seen(options.picture_px)
    shape = (policy.horizon, policy.action_dim)
    noise = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    timer = Timer(policy.synchronize, options.rounds)
    print(f"{device_name(options.device)}, {options.form}")
    timer.step("call", lambda: policy.act(observation, noise), True)
    inputs = policy.frontend.inputs(observation, noise)
    if isinstance(policy, CompiledPolicy):
        call = cast("GraphedCall", policy.call)
        found = graphs_ms(call, inputs)
        found["host"] = timer.found["call"] - found["graphs"]
        for name, ms in {**found, **timeline(call, inputs, options.rounds)}.items():
            timer.note(name, ms)
    time_host(timer, policy, inputs)
    if options.out:
        facts = {"device": device_name(options.device), "form": options.form}
        write_json(options.out, {**facts, "ms": timer.found})


if __name__ == "__main__":
    main()
