"""Demonstrations in memory: what the network sees, and the actions it shall answer with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from duqsweep.checkpoint.embedded_config import EmbeddedConfig
from duqsweep.checkpoint.sizes import PolicySizes
from duqsweep.policy.preprocess import (
    state_tokens,
    state_vector,
    text_tokens,
)

STATE_MARGIN = 0.1  # of the range seen, on both sides
MIN_ACTION_STD = 0.05  # axes that hardly move do not become noise


@dataclass(frozen=True)
class Episode:
    """One successful demonstration."""

    pixels: NDArray[np.uint8]  # (frames, cameras, px, px, 3)
    frame_index: NDArray[np.int64]  # (frames,) the step that each frame shows
    state: NDArray[np.float64]  # (steps, 11)
    actions: NDArray[np.float32]  # (steps, 7) the expert's answer to each step's state
    foreseeable: NDArray[np.bool_]  # (steps,) the expert's answer was what the robot then did
    instruction: str
    task: int


@dataclass
class Frames:
    """All frames of many episodes, on one device."""

    pixels: Tensor  # (n, cameras, px, px, 3) uint8
    prompt: Tensor  # (n, tokens) int64
    chunk: Tensor  # (n, horizon, 7) normalised actions
    weight: Tensor  # (n, horizon) 1 where the chunk is a fair target
    task: Tensor  # (n,) int64


def read_episodes(folder: Path, limit: int | None = None) -> list[Episode]:
    """The successful episodes of the `.npz` files in `folder`.

    Args:
        folder: Written by `demonstrate.py`.
        limit: Read so many files only, spread evenly over their sorted names.

    Raises:
        SystemExit: There is none.
    """
    paths = sorted(folder.rglob("*.npz"))
    if limit is not None:
        paths = paths[:: max(1, len(paths) // limit)]
    episodes = []
    for path in paths:
        with np.load(path, allow_pickle=False) as data:
            if not bool(data["success"]):
                continue
            episodes.append(
                Episode(
                    pixels=np.stack((data["agentview"], data["wrist"]), axis=1),
                    frame_index=data["frame_index"].astype(np.int64),
                    state=state_vector(data["eef_pos"], data["eef_quat"], data["gripper_qpos"]),
                    actions=data["actions"].astype(np.float32),
                    foreseeable=data["valid"].astype(bool),
                    instruction=str(data["instruction"]),
                    task=int(data["task"]),
                )
            )
    if not episodes:
        raise SystemExit(f"no successful episode in {folder}")
    return episodes


def make_config(episodes: list[Episode], sizes: PolicySizes) -> EmbeddedConfig:
    """Vocabulary and normalisation from the demonstrations themselves."""
    words = sorted({word for episode in episodes for word in episode.instruction.lower().split()})
    longest = max(len(episode.instruction.split()) for episode in episodes)
    state = np.concatenate([episode.state for episode in episodes])
    actions = np.concatenate([episode.actions for episode in episodes]).astype(np.float64)
    low, high = state.min(axis=0), state.max(axis=0)
    margin = STATE_MARGIN * (high - low) + 1e-3
    return EmbeddedConfig(
        sizes=sizes,
        words=("", *words),
        text_tokens=longest,
        state_low=tuple((low - margin).round(5).tolist()),
        state_high=tuple((high + margin).round(5).tolist()),
        action_mean=tuple(actions.mean(axis=0).round(5).tolist()),
        action_std=tuple(np.maximum(actions.std(axis=0), MIN_ACTION_STD).round(5).tolist()),
    )


def make_frames(episodes: list[Episode], config: EmbeddedConfig, device: str) -> Frames:
    """Every frame with its chunk, normalised, on `device`."""
    mean = np.asarray(config.action_mean, dtype=np.float32)
    std = np.asarray(config.action_std, dtype=np.float32)
    prompts, chunks, weights, tasks = [], [], [], []
    for episode in episodes:
        text = text_tokens(episode.instruction, config)
        states = state_tokens(episode.state[episode.frame_index], config)
        prompts.append(np.concatenate((np.tile(text, (len(states), 1)), states), axis=1))
        chunk, weight = _chunks(episode, config.sizes.horizon)
        chunks.append((chunk - mean) / std)
        weights.append(weight)
        tasks.append(np.full(len(states), episode.task))
    return Frames(
        pixels=torch.from_numpy(np.concatenate([e.pixels for e in episodes])).to(device),
        prompt=torch.from_numpy(np.concatenate(prompts)).to(device),
        chunk=torch.from_numpy(np.concatenate(chunks).astype(np.float32)).to(device),
        weight=torch.from_numpy(np.concatenate(weights).astype(np.float32)).to(device),
        task=torch.from_numpy(np.concatenate(tasks)).to(device),
    )


def _chunks(episode: Episode, horizon: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(frames, horizon, 7) actions from each frame on, and (frames, horizon) their weights.

    A chunk stops being a fair target where the robot was pushed off the expert's way inside it: the
    answers after that could not be foreseen. Beyond the episode's end the last action is repeated
    with weight 0.
    """
    steps = len(episode.actions)
    index = episode.frame_index[:, None] + np.arange(horizon)
    inside = index < steps
    index = np.minimum(index, steps - 1)
    followed = np.cumprod(episode.foreseeable[index], axis=1)
    before = np.concatenate((np.ones((len(index), 1)), followed[:, :-1]), axis=1)
    return episode.actions[index], (before * inside).astype(np.float32)
