"""What others published about a call of pi0 or pi0.5, and at which shape ours can be put beside it.

Each figure is its publisher's: nothing here was measured by this project.
"""

from __future__ import annotations

from dataclasses import dataclass

NUM_STEPS = 10  # of all of them, and of ours beside them
ONE_GRAPH = "one CUDA graph, without the host's work"  # as our forms are timed
WHOLE_CALL = "end to end, with the host's work"
NOT_SAID = "latency; what it includes is not said"


@dataclass(frozen=True)
class Shape:
    """What decides how much a call computes; batch 1."""

    cameras: int
    horizon: int
    prompt_tokens: int


@dataclass(frozen=True)
class Published:
    """One figure, with what it takes to judge it."""

    who: str
    source: str
    machine: str
    policy: str  # model and number format
    timed: str
    ms: float
    shape: Shape | None  # ours that is put beside it; None: there is none
    remark: str  # how far the shapes match, or why they cannot


FLASH_VLA = "https://github.com/revollllt/flash-vla"
FLASHRT = "https://github.com/flashrt-project/FlashRT/blob"
FLASHRT_COMPARISON = (
    f"{FLASHRT}/66b18eb766e73e2fcad406bc622bd3bfd70664c1/docs/benchmark_comparison.md"
)
OMNI = "https://github.com/vllm-project/vllm-omni/issues/6524"
NO_PROMPT_LENGTH = "the prompt's length is not published"

PUBLISHED = (
    Published(
        who="flash-vla",
        source=f"{FLASH_VLA}/blob/7b15868182b33c93be0f5971979837abd085d905/README.md",
        machine="NVIDIA H100",
        policy="pi0, bf16",
        timed=ONE_GRAPH,
        ms=15.18,
        shape=Shape(cameras=3, horizon=50, prompt_tokens=1),
        remark="matched: 819 keys in both; pi0 has a state token where ours has a prompt token",
    ),
    Published(
        who="flash-vla",
        source=FLASH_VLA,
        machine="NVIDIA H100",
        policy="pi0.5, bf16",
        timed=ONE_GRAPH,
        ms=15.8,
        shape=Shape(cameras=3, horizon=50, prompt_tokens=200),
        remark="matched: the prompt is padded to 200 tokens, a prefix of 968",
    ),
    Published(
        who="openpi-1 (sunxxuns)",
        source="https://github.com/sunxxuns/openpi-1/blob/main/README.md",
        machine="NVIDIA H200",
        policy="pi0, bf16",
        timed=WHOLE_CALL,
        ms=25.35,
        shape=Shape(cameras=3, horizon=50, prompt_tokens=20),
        remark="matched: a prefix of 788 tokens; pi0 has one state token more",
    ),
    Published(
        who="SGLang",
        source="https://github.com/sgl-project/sglang/pull/34256",
        machine="NVIDIA H200",
        policy="pi0.5, bf16",
        timed=WHOLE_CALL,
        ms=43.07,
        shape=Shape(cameras=3, horizon=50, prompt_tokens=20),
        remark=f"ALOHA's three cameras and pi05_base's chunk of 50; {NO_PROMPT_LENGTH}",
    ),
    Published(
        who="vLLM-omni",
        source=OMNI,
        machine="NVIDIA RTX PRO 5000",
        policy="pi0.5, bf16",
        timed=NOT_SAID,
        ms=41.3,
        shape=Shape(cameras=3, horizon=50, prompt_tokens=20),
        remark=f"another card; {NO_PROMPT_LENGTH}",
    ),
    Published(
        who="vLLM-omni",
        source=OMNI,
        machine="NVIDIA RTX PRO 5000",
        policy="pi0.5, bf16",
        timed=NOT_SAID,
        ms=20.6,
        shape=Shape(cameras=1, horizon=50, prompt_tokens=20),
        remark=f"another card; {NO_PROMPT_LENGTH}",
    ),
    *(
        Published(
            who="FlashRT",
            source=f"{FLASHRT}/main/README.md",
            machine="NVIDIA GeForce RTX 5090",
            policy="pi0.5, FP8",
            timed=NOT_SAID,
            ms=ms,
            shape=Shape(cameras=cameras, horizon=10, prompt_tokens=20),
            remark=f"another card; {NO_PROMPT_LENGTH}",
        )
        for cameras, ms in ((1, 14.48), (2, 17.58), (3, 20.00))
    ),
    Published(
        who="FlashRT",
        source=FLASHRT_COMPARISON,
        machine="NVIDIA Jetson AGX Thor",
        policy="pi0.5, NVFP4",
        timed=WHOLE_CALL,
        ms=20.33,
        shape=Shape(cameras=2, horizon=10, prompt_tokens=20),
        remark=f"another card, a small one; {NO_PROMPT_LENGTH}",
    ),
    Published(
        who="FlashRT",
        source=FLASHRT_COMPARISON,
        machine="NVIDIA GeForce RTX 4090",
        policy="GR00T N1.7, FP8",
        timed=ONE_GRAPH,
        ms=9.69,
        shape=None,
        remark="another model: GR00T N1.7 with two cameras and a chunk of 40",
    ),
    Published(
        who="NVIDIA",
        source="https://github.com/NVIDIA/Isaac-GR00T",
        machine="NVIDIA H100",
        policy="GR00T N1.7, TensorRT",
        timed=NOT_SAID,
        ms=47.0,
        shape=None,
        remark="another model, with four steps; their log says 29.6 ms where their table says 47",
    ),
)
