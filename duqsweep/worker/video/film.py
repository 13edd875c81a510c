"""Replays one episode, or two side by side, and writes them as a video."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from duqsweep.errors import ConfigError, InfrastructureError
from duqsweep.seams import Environment
from duqsweep.worker.video.picture import beside, picture
from duqsweep.worker.video.replay import Recording, Replay
from duqsweep.worker.video.timeline import Timeline

FRAMES_PER_S = 20
END_S = 1.0  # how long the last picture stays
FORMATS = (".mp4", ".gif")


def write_film(
    path: Path,
    recordings: Sequence[Recording],
    environments: Sequence[Environment],
    side: int,
    speed: float,
) -> None:
    """Write the video of episodes that began in the same state, side by side.

    The robot waits while the policy computes: one that calls longer falls behind.

    Args:
        path: `.mp4` (H.264) or `.gif`; it appears whole or not at all.
        recordings: One or two episodes of the same ledger entry.
        environments: Of their suite, with pictures; at least one per episode.
        side: Width of each episode's picture in pixels, even.
        speed: Seconds of the episode per second of video.

    Raises:
        ConfigError: The name's ending is of no known format.
        InfrastructureError: The simulator failed or does not repeat the episode.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"a video's name ends in {' or '.join(FORMATS)}, got {path.name!r}")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    write = _write_mp4 if path.suffix == ".mp4" else _write_gif
    try:
        write(temporary, _pictures(recordings, environments, side, speed))
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _pictures(
    recordings: Sequence[Recording], environments: Sequence[Environment], side: int, speed: float
) -> Iterator[NDArray[np.uint8]]:
    replays = [Replay(*pair) for pair in zip(environments, recordings, strict=False)]
    times = [Timeline(len(r.actions), r.call_s, r.replan_steps) for r in recordings]
    last_s = max(timeline.duration_s for timeline in times)
    frames = int(last_s / speed * FRAMES_PER_S) + 2
    for frame in range(frames + int(END_S * FRAMES_PER_S)):
        now = min(frame / FRAMES_PER_S * speed, last_s)
        yield beside(
            [
                _picture(replay, about, time, now, side)
                for about, replay, time in zip(recordings, replays, times, strict=True)
            ]
        )


def _picture(
    replay: Replay, recording: Recording, timeline: Timeline, now: float, side: int
) -> NDArray[np.uint8]:
    seen = replay.advance(timeline.steps_at(now))
    seconds = min(now, timeline.duration_s)
    status = (
        f"{seconds:.1f} s, {timeline.calls_at(seconds)} calls of {1e3 * recording.call_s:.3g} ms"
    )
    success = None
    if now >= timeline.duration_s:
        success = recording.record.success
        status += ", success" if success else ", failure"
    return picture(seen, status, success, [seen.instruction, recording.title], side)


def _write_mp4(path: Path, pictures: Iterator[NDArray[np.uint8]]) -> None:
    first = next(pictures)
    height, width, _ = first.shape
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=FRAMES_PER_S,
        codec="libx264",
        quality=None,
        macro_block_size=2,
        output_params=["-crf", "26", "-preset", "veryfast", "-movflags", "+faststart"],
    )
    writer.send(None)
    try:
        writer.send(first)
        for image in pictures:
            writer.send(np.ascontiguousarray(image))
    except OSError as error:
        raise InfrastructureError(f"ffmpeg could not write {path.name}: {error}") from error
    finally:
        writer.close()


def _write_gif(path: Path, pictures: Iterator[NDArray[np.uint8]]) -> None:
    """Every second picture, with a palette of 128 colours."""
    images = [
        Image.fromarray(image).quantize(128) for i, image in enumerate(pictures) if i % 2 == 0
    ]
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=2000 // FRAMES_PER_S,
        loop=0,
        optimize=True,
    )
