"""A recorded episode is replayed in the real simulator and written as a video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from duqsweep.envs.libero import open_environment
from duqsweep.errors import InfrastructureError
from duqsweep.result import EpisodeRecord
from duqsweep.seams import Environment
from duqsweep.spec import LedgerEntry, SuiteSpec
from duqsweep.worker.video.film import FRAMES_PER_S, write_film
from duqsweep.worker.video.replay import Recording, Replay

SIDE = 64
STEPS = 12
SUITE = SuiteSpec(
    name="duq_mini",
    tasks=6,
    init_states=20,
    max_steps=60,
    nominal_steps=60,
    replan_steps=5,
    settle_steps=2,
    image_px=SIDE,
)
ENTRY = LedgerEntry(i=5, suite=SUITE.name, task=1, init_state=0, seed=7)
ACTIONS = np.random.default_rng(0).uniform(-1, 1, (STEPS, 7))


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    found = open_environment(SUITE)
    yield found
    found.close()


@pytest.fixture(scope="module")
def played(environment: Environment) -> list[np.ndarray]:
    """What the episode looked like when it was played."""
    views = [environment.reset(ENTRY).images["agentview"]]
    for action in ACTIONS:
        environment.step(action)
        views.append(environment.observe().images["agentview"])
    return views


def recording(success: bool = False, call_s: float = 0.1) -> Recording:
    record = EpisodeRecord(
        i=5,
        suite=SUITE.name,
        task=1,
        init_state=0,
        seed=7,
        success=success,
        steps=STEPS,
        calls=3,
        policy_s=0.1,
        sim_s=0.1,
        wall_s=0.2,
    )
    return Recording("trial 7: w_bits=4", ENTRY, record, ACTIONS, call_s, replan_steps=5)


def test_a_replay_shows_the_episode_again(environment, played):
    replay = Replay(environment, recording())
    for step in (0, 1, 1, 7, STEPS):
        assert np.array_equal(replay.advance(step).images["agentview"], played[step])


def test_a_replay_that_ends_otherwise_is_refused(environment):
    replay = Replay(environment, recording(success=True))
    with pytest.raises(InfrastructureError, match="episode 5 was a success and its replay is not"):
        replay.advance(STEPS)


@pytest.mark.slow
def test_two_episodes_are_written_side_by_side(tmp_path, environment):
    path = tmp_path / "film.mp4"
    slow = recording(call_s=0.5)
    with closing(open_environment(SUITE)) as other:
        write_film(path, [recording(), slow], [environment, other], SIDE, speed=1.0)
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
    expected_s = 3 * 0.5 + STEPS * 0.05 + 1.0  # the slower one, and the last picture
    assert abs(frames / FRAMES_PER_S - expected_s) < 0.2
    assert abs(seconds - expected_s) < 0.2
    width, height = next(imageio_ffmpeg.read_frames(str(path)))["size"]
    assert (width, height > SIDE) == (2 * SIDE + 4, True)
    assert next(imageio_ffmpeg.read_frames(str(path)))["codec"] == "h264"
    assert [entry.name for entry in tmp_path.iterdir()] == ["film.mp4"]


def test_a_moving_picture_for_pages(tmp_path, environment):
    path = tmp_path / "film.gif"
    write_film(path, [recording()], [environment], SIDE, speed=4.0)
    with Image.open(path) as image:
        assert image.n_frames >= 3  # equal pictures are one


def test_nothing_is_left_of_a_video_that_failed(tmp_path, environment):
    path = tmp_path / "film.mp4"
    with pytest.raises(InfrastructureError):
        write_film(path, [recording(success=True)], [environment], SIDE, speed=9.0)
    assert not list(tmp_path.iterdir())
