"""What a simulator is asked to do between two calls of the policy, and what it answers.

`Request` and `Answer` are all that an episode knows; `Opening` and `Reply` carry them between two
processes. `Fork` and `Wait` are what the template of these processes is asked.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from duqsweep.errors import DuqsweepError
from duqsweep.seams import Environment, Observation
from duqsweep.spec import LedgerEntry, SuiteSpec

OPEN_LIBERO = "duqsweep.envs.libero:open_environment"
DESCRIPTORS = 4  # that follow a `Fork`: connection, shared memory, working folder, standard error


@dataclass(frozen=True)
class Reset:
    """Start an episode and say what is seen."""

    entry: LedgerEntry


@dataclass(frozen=True)
class Play:
    """Execute a chunk of actions."""

    actions: NDArray[np.float64]  # (n, 7) in [-1, 1]
    observe: bool  # draw what is seen afterwards, unless the goal was reached
    to_goal: bool = True  # stop at the first action after which the goal holds


Request = Reset | Play


@dataclass(frozen=True)
class Answer:
    """What happened."""

    observation: Observation | None
    success: bool
    steps: int  # actions executed
    sim_s: float  # seconds that the simulator took


@dataclass(frozen=True)
class Opening:
    """The first message: what is to be simulated."""

    suite: SuiteSpec
    opener: str  # MODULE:FUNCTION that gives the environment of a suite


@dataclass(frozen=True)
class Reply:
    """The answer to the opening or to one request."""

    answer: Answer | None = None  # its pictures and state are in the shared memory
    instruction: str | None = None  # None: the shared memory holds nothing new
    built: frozenset[tuple[int, int | None]] = frozenset()  # see `Environment.built`
    error: DuqsweepError | None = None


@dataclass(frozen=True)
class Fork:
    """Become one more simulator; the answer is its process id."""

    environment: dict[str, str]


@dataclass(frozen=True)
class Wait:
    """Say how a simulator's process ended: its exit code, negative for a signal; None: it runs."""

    pid: int
    timeout_s: float


def answer(environment: Environment, request: Request) -> Answer:
    """Do what `request` says; errors are those of the environment."""
    start = time.perf_counter()
    observation, success, steps = None, False, 0
    if isinstance(request, Reset):
        observation = environment.reset(request.entry)
    else:
        for action in request.actions:
            success = environment.step(action)
            steps += 1
            if success and request.to_goal:
                break
        if request.observe and not (success and request.to_goal):
            observation = environment.observe()
    return Answer(observation, success, steps, time.perf_counter() - start)
