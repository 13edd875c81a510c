"""Conversion of images, state and actions for pi0.5 against the libraries that openpi uses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pi05_parts import TINY, observation, spec
from PIL import Image

from duqsweep.policy.load import load_policy
from duqsweep.policy.pi05_preprocess import axis_angle, libero_state, resize_with_pad
from duqsweep.policy.random_pi05 import RandomPi05, write_random


@pytest.mark.parametrize(("height", "width"), [(256, 256), (128, 256), (300, 200), (64, 64)])
def test_pictures_are_fitted_as_pil_does(height: int, width: int) -> None:
    smooth = np.random.default_rng(0).random((height // 4, width // 4, 3)) * 255
    picture = np.uint8(smooth).repeat(4, 0).repeat(4, 1)
    ratio = max(height / 224, width / 224)
    size = (int(width / ratio), int(height / ratio))
    canvas = Image.new("RGB", (224, 224))
    corner = ((224 - size[0]) // 2, (224 - size[1]) // 2)
    canvas.paste(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR), corner)
    planes = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    fitted = resize_with_pad(planes, 224, antialias=True)[0].permute(1, 2, 0)
    difference = np.abs(fitted.numpy() - np.asarray(canvas).astype(float))
    assert difference.max() <= 1  # PIL rounds after each of two passes
    assert difference.mean() < 0.2


@pytest.mark.parametrize("side", [TINY.vision.image_px, 80])
def test_pictures_are_mirrored_fitted_and_scaled(tmp_path: Path, side: int) -> None:
    write_random(tmp_path, RandomPi05(TINY, dtype=torch.float32))
    preprocessing = load_policy(spec(tmp_path), "cpu").preprocessing
    seen = observation(side)
    found = preprocessing.pixels(torch.from_numpy(np.stack(preprocessing.pictures(seen))))
    px = TINY.vision.image_px
    for camera, pixels in zip(("agentview", "wrist"), found, strict=True):
        fitted = Image.fromarray(seen.images[camera]).resize((px, px), Image.Resampling.BILINEAR)
        mirrored = np.asarray(fitted).astype(float)[:, ::-1].transpose(2, 0, 1)
        steps = np.abs((pixels.numpy() + 1) * 127.5 - mirrored)
        assert steps.max() < (1e-4 if side == px else 1.01)  # PIL rounds after each of two passes


def test_without_antialiasing_each_pixel_is_made_of_its_neighbours() -> None:
    row = torch.arange(8.0).repeat(8, 1)[None, None].expand(1, 3, 8, 8)
    fitted = resize_with_pad(row, 4, antialias=False)
    torch.testing.assert_close(fitted[0, 0, 0], torch.tensor([0.5, 2.5, 4.5, 6.5]))
    assert torch.equal(resize_with_pad(row, 8, antialias=False), row)


def test_the_bars_beside_a_picture_are_black_and_even() -> None:
    fitted = resize_with_pad(torch.full((1, 3, 10, 20), 9.0), 20, antialias=False)
    rows = fitted[0, 0, :, 0]
    assert rows.tolist() == [0.0] * 5 + [9.0] * 10 + [0.0] * 5


turning = st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(
    lambda q: np.linalg.norm(q[:3]) > 0.1
)


@given(turning)
def test_axis_and_angle_turn_as_the_quaternion_does(quaternion: list[float]) -> None:
    q = np.array(quaternion) / np.linalg.norm(quaternion)
    turn = axis_angle(q)
    angle = np.linalg.norm(turn)
    assert angle <= 2 * np.pi + 1e-6
    # Half the angle, on the axis, is the quaternion again, sign included.
    half = np.array([*(turn / angle * np.sin(angle / 2)), np.cos(angle / 2)])
    np.testing.assert_allclose(half, q, atol=1e-6)


def test_no_turn_has_no_axis() -> None:
    assert axis_angle(np.array([0.0, 0.0, 0.0, 1.0])).tolist() == [0.0] * 3
    assert axis_angle(np.array([0.0, 0.0, 0.0, 1.0 + 1e-9])).tolist() == [0.0] * 3


def test_the_state_is_position_turn_and_fingers() -> None:
    seen = dataclasses.replace(observation(), eef_quat=np.array([1.0, 0.0, 0.0, 0.0]))
    expected = [0.1, -0.2, 0.9, np.pi, 0.0, 0.0, 0.03, -0.03]
    np.testing.assert_allclose(libero_state(seen), expected)
