"""`duqsweep video DIR`: episodes of a sweep as videos, replayed from their recorded actions."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from duqsweep import files
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.front.content import compute_front
from duqsweep.control.front.formats import number as shown
from duqsweep.control.front.measures import CALL_MS
from duqsweep.control.report.report import write_report
from duqsweep.control.trials.reader import TrialView, read_trials
from duqsweep.control.trials.reference import sweep_reference
from duqsweep.control.view.wording import short_params
from duqsweep.errors import ConfigError
from duqsweep.result import EpisodeRecord
from duqsweep.verbs.folder import sweep_config
from duqsweep.worker.ledger import read_ledger
from duqsweep.worker.simulator import check_simulator

if TYPE_CHECKING:
    from duqsweep.worker.video.replay import Recording

REFERENCE = "reference"
MIN_SIDE, MAX_SIDE = 64, 1024  # pixels


@dataclass(frozen=True)
class _Film:
    """One video: an episode of one trial, or of two."""

    episode: int
    trials: tuple[int, ...]

    @property
    def file_name(self) -> str:
        """E.g. `trial_0007_beside_0000_episode_0012.mp4`."""
        trials = "_beside_".join(f"{trial:04d}" for trial in self.trials)
        return f"trial_{trials}_episode_{self.episode:04d}.mp4"


def main(arguments: list[str]) -> int:
    """Write the videos and print their paths; returns 0."""
    parsed = _parse(arguments)
    config = sweep_config(parsed.directory)
    views = {view.number: view for view in read_trials(config.directory)}
    beside = None if parsed.beside is None else _trial(config, views, parsed.beside)
    trials = _chosen_trials(config, views) if parsed.trial is None else [parsed.trial]
    films = []
    for trial in trials:
        episodes = _episodes(_trial(config, views, str(trial)), parsed.episode)
        others = () if beside is None or beside.number == trial else (beside.number,)
        if beside is not None and parsed.episode is None:
            common = {record.i for record in beside.episodes if record.error is None}
            episodes = [record for record in episodes if record.i in common]
        films += [_Film(record.i, (*others, trial)) for record in episodes]
    if not films:
        raise ConfigError(f"{config.name} has no finished episode to show yet")
    if parsed.out is not None and len(films) > 1:
        raise ConfigError(f"--out takes one video, and these are {len(films)}: give --episode")
    recorded = [_recordings(config, views, film) for film in films]
    check_simulator(config.directory, config.base.suite)

    from duqsweep.envs.libero import open_environment  # the simulator takes seconds to import
    from duqsweep.worker.video.film import write_film

    folder = config.directory / files.VIDEOS_DIR
    suite = replace(config.base.suite, image_px=parsed.px)
    for position, (film, recordings) in enumerate(zip(films, recorded, strict=True), 1):
        path = parsed.out or folder / film.file_name
        if parsed.out is None and path.exists():
            print(f"{position} of {len(films)}: {path} is there already")
            continue
        path.parent.mkdir(exist_ok=True)
        write_film(path, recordings, lambda: open_environment(suite), parsed.px, parsed.speed)
        print(f"{position} of {len(films)}: {path}", flush=True)
    if (config.directory / files.REPORT_HTML).exists():  # it shows the videos
        front = compute_front(config.directory, config.objectives)
        write_report(config.directory, front, list(views.values()))
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="duqsweep video",
        description=__doc__,
        epilog="Without --trial: the reference and the trials on the front. Without --episode: "
        "every failure, and one success of each task.",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="the sweep's folder")
    parser.add_argument("--trial", type=int, metavar="N", help="a trial's number")
    parser.add_argument("--episode", type=int, metavar="I", help="an episode of the ledger")
    parser.add_argument(
        "--beside",
        metavar="reference|M",
        help="show the same episode of the reference, or of trial M, on the left",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="one video's file: .mp4 or .gif")
    parser.add_argument("--px", type=int, default=256, help="side of a picture (default 256)")
    parser.add_argument(
        "--speed", type=float, default=1.0, help="episode seconds per second (default 1)"
    )
    parsed = parser.parse_args(arguments)
    if parsed.px % 2 or not MIN_SIDE <= parsed.px <= MAX_SIDE:
        raise ConfigError(f"--px must be even, {MIN_SIDE} to {MAX_SIDE}, got {parsed.px}")
    if not 0.1 <= parsed.speed <= 100:
        raise ConfigError(f"--speed must be 0.1 to 100, got {parsed.speed:g}")
    if parsed.out is not None and parsed.out.suffix not in (".mp4", ".gif"):
        raise ConfigError(f"--out must end in .mp4 or .gif, got {parsed.out.name!r}")
    if parsed.out is not None and not parsed.out.parent.is_dir():
        raise ConfigError(f"--out: there is no folder {parsed.out.parent}")
    return parsed


def _trial(config: SweepConfig, views: dict[int, TrialView], word: str) -> TrialView:
    """The trial of a number, or the one that is the reference."""
    if word == REFERENCE:
        found = next((v for v in views.values() if v.trial.name == REFERENCE), None)
    else:
        found = views.get(int(word)) if word.isascii() and word.isdigit() else None
    if found is None:
        known = ", ".join(map(str, views)) or "none"
        raise ConfigError(f"{config.name} has no trial {word}; trials are: {known}")
    return found


def _chosen_trials(config: SweepConfig, views: dict[int, TrialView]) -> list[int]:
    """The reference and the trials on the front; all trials while there is neither."""
    front = compute_front(config.directory, config.objectives)
    reference = [view.number for view in views.values() if view.trial.name == REFERENCE]
    return sorted({*reference, *(point.trial for point in front.members)} or views)


def _episodes(view: TrialView, episode: int | None) -> list[EpisodeRecord]:
    """The episode that was asked for; or every failure, and the first success of each task."""
    finished = [record for record in view.episodes if record.error is None]
    if episode is None:
        return list(_telling(finished))
    chosen = [record for record in finished if record.i == episode]
    if not chosen:
        played = ", ".join(str(record.i) for record in finished) or "none"
        raise ConfigError(
            f"trial {view.number} has no finished episode {episode}; finished are: {played}"
        )
    return chosen


def _telling(records: Sequence[EpisodeRecord]) -> Iterator[EpisodeRecord]:
    shown_tasks = set()
    for record in records:
        if not record.success or record.task not in shown_tasks:
            yield record
        if record.success:
            shown_tasks.add(record.task)


def _recordings(config: SweepConfig, views: dict[int, TrialView], film: _Film) -> list[Recording]:
    """What a video shows, from the left.

    Raises:
        ConfigError: A trial did not finish the episode, or its actions were not recorded.
    """
    from duqsweep.worker.actions import read_actions
    from duqsweep.worker.video.replay import Recording

    entry = read_ledger(config.directory / files.LEDGER_JSON)[film.episode]
    reference = sweep_reference(config.directory)
    recordings = []
    for trial in film.trials:
        view = views[trial]
        (record,) = _episodes(view, film.episode)
        if view.vitals is None:
            raise ConfigError(f"trial {trial} was not benchmarked yet")
        # One that `evaluate` made has no reference to be normalised to.
        call_ms = CALL_MS.read(view, reference) or view.vitals.call_ms.p50
        folder = files.trial_dir(config.directory, trial)
        recordings.append(
            Recording(
                title=_title(view),
                entry=entry,
                record=record,
                actions=read_actions(folder, record.i, record.attempt),
                call_s=call_ms / 1000,
                replan_steps=view.trial.spec.suite.replan_steps,
            )
        )
    return recordings


def _title(view: TrialView) -> str:
    """The trial's number and its plan, or what was searched of it."""
    params = short_params(view.trial.params)
    settings = " ".join(f"{key}={shown(value)}" for key, value in params.items())
    return f"trial {view.number}: {view.trial.name or settings}"
