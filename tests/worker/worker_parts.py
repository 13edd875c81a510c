"""Trial folders, and substitutes for faults that real parts do not have on demand."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from duqsweep import files
from duqsweep.checkpoint.locate import policy_sizes
from duqsweep.checkpoint.sizes import linear_layers
from duqsweep.errors import InfrastructureError
from duqsweep.fingerprint import fingerprint
from duqsweep.quant.select import select_layers
from duqsweep.seams import Observation
from duqsweep.spec import LayerRule, LedgerEntry, QuantSpec, Schedule, Trial, TrialSpec
from duqsweep.worker.ledger import make_ledger, write_ledger

Act = Callable[[NDArray[np.float32]], NDArray[np.float64]]
ActSeeing = Callable[[Observation, NDArray[np.float32]], NDArray[np.float64]]
INSTRUCTION = "pick up the red cube and place it in the tray"
EXPERT_W4A8 = QuantSpec(rules=(LayerRule("gemma_expert", weight_bits=4, act_bits=8),))


class PaperSimulator:
    """A world of one number that each action's first value moves; the goal is to pass `goal`."""

    def __init__(self, goal: float = 1e9, broken_resets: tuple[int, ...] = ()) -> None:
        self.goal, self.broken_resets = goal, broken_resets
        self.resets = self.closed = 0
        self.position = 0.0

    def reset(self, entry: LedgerEntry) -> Observation:
        self.resets += 1
        if self.resets - 1 in self.broken_resets:
            raise InfrastructureError("the renderer lost its context")
        self.position = entry.init_state / 100
        return self.observe()

    def step(self, action: NDArray[np.float64]) -> bool:
        assert action.shape == (7,)
        self.position += float(action[0])
        return self.position > self.goal

    def close(self) -> None:
        self.closed += 1

    def observe(self) -> Observation:
        picture = np.full((64, 64, 3), int(abs(self.position) * 40) % 256, dtype=np.uint8)
        return Observation(
            images={"agentview": picture, "wrist": picture[::-1]},
            eef_pos=np.array([self.position, 0.0, 0.2]),
            eef_quat=np.array([0.0, 0.0, 0.0, 1.0]),
            gripper_qpos=np.array([0.02, -0.02]),
            instruction=INSTRUCTION,
        )


class PaperActions:
    """Actions that are computed when they are waited for."""

    def __init__(self, act: Callable[[], NDArray[np.float64]]) -> None:
        self._act = act

    def is_over(self) -> bool:
        return False

    def wait(self) -> NDArray[np.float64]:
        return self._act()


class PaperPolicy:
    """Acts by a function of the call's noise, its copies by another; keeps the noises it met."""

    def __init__(self, act: Act, act_of_copies: Act | None = None, num_steps: int = 10) -> None:
        self.module: torch.nn.Module = torch.nn.Linear(1, 1)
        self.calls_at_once = 1
        self.horizon, self.action_dim, self.num_steps = 10, 7, num_steps
        self._act, self._act_of_copies = act, act_of_copies or act
        self.noises: list[NDArray[np.float32]] = []

    def act(self, observation: Observation, noise: NDArray[np.float32]) -> NDArray[np.float64]:
        self.noises.append(noise)
        return self._act(noise)

    def begin(self, observation: Observation, noise: NDArray[np.float32]) -> PaperActions:
        return PaperActions(lambda: self.act(observation, noise))

    def act_normalised(
        self, observation: Observation, noise: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        return self._act(noise).astype(np.float32)

    def time_parts(self, observation: Observation, noise: NDArray[np.float32]) -> dict[str, float]:
        return {"vision": 0.001, "llm": 0.001, "dit": 0.001}

    def copy(self, num_steps: int, schedule: Schedule, reuse_images: bool) -> PaperPolicy:
        return PaperPolicy(self._act_of_copies, num_steps=num_steps)

    def weights(self) -> list[torch.Tensor]:
        return list(self.module.parameters())

    def launches(self, observation: Observation, noise: NDArray[np.float32]) -> dict[str, int]:
        return {}

    def reads(self, observation: Observation) -> tuple[int, int]:
        return 2, 27

    def synchronize(self) -> None:
        pass


class ThreadedPolicy(PaperPolicy):
    """Computes in a thread, one call after the other; two may begin. Acts as `act` or its noise."""

    def __init__(self, call_s: float = 0.0, act: ActSeeing | None = None) -> None:
        super().__init__(lambda noise: noise.astype(np.float64))
        self.calls_at_once, self._call_s = 2, call_s
        self._see = act or (lambda observation, noise: noise.astype(np.float64))
        self._thread = ThreadPoolExecutor(1)
        self.begun_s: list[float] = []
        self.ended_s: list[float] = []

    def begin(self, observation: Observation, noise: NDArray[np.float32]) -> ThreadedActions:  # type: ignore[override]
        unfinished = len(self.begun_s) - len(self.ended_s)
        assert unfinished < self.calls_at_once, f"{unfinished} calls have begun and not ended"
        self.begun_s.append(time.perf_counter())
        return ThreadedActions(self._thread.submit(self._compute, observation, noise))

    def close(self) -> None:
        self._thread.shutdown()

    def _compute(self, observation: Observation, noise: NDArray[np.float32]) -> NDArray[np.float64]:
        time.sleep(self._call_s)
        found = self._see(observation, noise)
        self.ended_s.append(time.perf_counter())
        return found


@dataclass(frozen=True)
class ThreadedActions:
    """What such a thread will give."""

    future: Future[NDArray[np.float64]]

    def is_over(self) -> bool:
        return self.future.done()

    def wait(self) -> NDArray[np.float64]:
        return self.future.result()


def make_trial(sweep_dir: Path, spec: TrialSpec) -> Path:
    """Write the next trial's folder as the control side does, and the ledger when there is none."""
    trials = sweep_dir / files.TRIALS_DIR
    number = len(list(trials.iterdir())) if trials.exists() else 0
    folder = files.trial_dir(sweep_dir, number)
    folder.mkdir(parents=True)
    bits = select_layers(spec.quant, linear_layers(policy_sizes(spec.policy)))
    trial = Trial(number, None, {}, fingerprint(spec, bits), spec)
    files.write_json(folder / files.SPEC_JSON, trial.to_json())
    if not (sweep_dir / files.LEDGER_JSON).exists():
        write_ledger(sweep_dir / files.LEDGER_JSON, make_ledger(spec.suite))
    return folder
