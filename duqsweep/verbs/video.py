"""`duqsweep video DIR`: episodes of a sweep as videos, replayed from their recorded actions."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from duqsweep import files
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.control.front.formats import number as shown
from duqsweep.control.front.measures import CALL_MS
from duqsweep.control.front.records import Front
from duqsweep.control.trials.reader import REFERENCE, TrialView, read_trials
from duqsweep.control.trials.reference import sweep_reference
from duqsweep.control.view.wording import short_params
from duqsweep.errors import ConfigError
from duqsweep.result import EpisodeRecord
from duqsweep.spec import SuiteSpec
from duqsweep.verbs.folder import sweep_config, sweep_front
from duqsweep.verbs.screens import update_screens
from duqsweep.worker.ledger import read_ledger
from duqsweep.worker.simulator import check_simulator

if TYPE_CHECKING:
    from duqsweep.seams import Environment
    from duqsweep.worker.video.replay import Recording

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
    trials = read_trials(config.directory)
    views = {view.number: view for view in trials}
    front = sweep_front(config, trials)
    beside = None if parsed.beside is None else _named(config, views, parsed.beside)
    chosen = _telling_trials(front, views) if parsed.trial is None else [parsed.trial]
    films = [
        film for number in chosen for film in _films(config, views, number, parsed.episode, beside)
    ]
    if not films:
        raise ConfigError(f"{config.name} has no finished episode to show yet")
    if parsed.out is not None and len(films) > 1:
        raise ConfigError(f"--out takes one video, and these are {len(films)}: give --episode")
    recorded = _recordings(config, views, films)
    check_simulator(config.directory, config.base.suite)
    folder = config.directory / files.VIDEOS_DIR
    paths = [parsed.out or folder / film.file_name for film in films]
    folder.mkdir(exist_ok=True)
    _write(paths, recorded, replace(config.base.suite, image_px=parsed.px), parsed)
    update_screens(config, front, trials)  # they show the videos
    return 0


def _write(
    paths: Sequence[Path],
    recorded: Sequence[Sequence[Recording]],
    suite: SuiteSpec,
    parsed: argparse.Namespace,
) -> None:
    """Write the videos that are not there; the simulators of one serve the next."""
    from duqsweep.envs.libero import open_environment  # the simulator takes seconds to import
    from duqsweep.worker.video.film import write_film

    with ExitStack() as stack:
        environments: list[Environment] = []
        for position, (path, recordings) in enumerate(zip(paths, recorded, strict=True), 1):
            count = f"{position} of {len(paths)}"
            if parsed.out is None and path.exists():
                print(f"{count}: {path} is there already")
                continue
            while len(environments) < len(recordings):
                environments.append(stack.enter_context(closing(open_environment(suite))))
            write_film(path, recordings, environments, parsed.px, parsed.speed)
            print(f"{count}: {path}", flush=True)


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


def _named(config: SweepConfig, views: dict[int, TrialView], word: str) -> TrialView:
    """The trial of a number, or the one that is the reference."""
    if word == REFERENCE:
        found = next((view for view in views.values() if view.trial.name == REFERENCE), None)
        return found or _unknown(config, views, word)
    return _trial(config, views, int(word)) if word.isdecimal() else _unknown(config, views, word)


def _trial(config: SweepConfig, views: dict[int, TrialView], number: int) -> TrialView:
    return views.get(number) or _unknown(config, views, number)


def _unknown(config: SweepConfig, views: dict[int, TrialView], which: object) -> NoReturn:
    known = ", ".join(map(str, views)) or "none"
    raise ConfigError(f"{config.name} has no trial {which}; trials are: {known}")


def _telling_trials(front: Front, views: dict[int, TrialView]) -> list[int]:
    """The reference and the trials on the front; all trials while there is neither."""
    reference = [view.number for view in views.values() if view.trial.name == REFERENCE]
    return sorted({*reference, *(point.trial for point in front.members)} or views)


def _films(
    config: SweepConfig,
    views: dict[int, TrialView],
    number: int,
    episode: int | None,
    beside: TrialView | None,
) -> Iterator[_Film]:
    """The videos of one trial; beside another trial, of the episodes that both have finished."""
    records = _episodes(_trial(config, views, number), episode)
    if beside is None or beside.number == number:
        yield from (_Film(record.i, (number,)) for record in records)
        return
    common = {record.i for record in beside.episodes if record.error is None}
    for record in records:
        if episode is not None or record.i in common:
            yield _Film(record.i, (beside.number, number))


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


def _recordings(
    config: SweepConfig, views: dict[int, TrialView], films: Sequence[_Film]
) -> list[list[Recording]]:
    """What each video shows, from the left.

    Raises:
        ConfigError: A trial did not finish the episode, or was not benchmarked.
        EvaluationError: Actions were not recorded, or are damaged.
    """
    from duqsweep.worker.actions import RecordedActions
    from duqsweep.worker.video.replay import Recording

    ledger = read_ledger(config.directory / files.LEDGER_JSON)
    reference = sweep_reference(config.directory)
    shown_trials = {number for film in films for number in film.trials}
    actions = {n: RecordedActions(files.trial_dir(config.directory, n)) for n in shown_trials}

    def recording(number: int, episode: int) -> Recording:
        view = views[number]
        (record,) = _episodes(view, episode)
        if view.vitals is None:
            raise ConfigError(f"trial {number} was not benchmarked yet")
        # One that `evaluate` made has no reference to be normalised to.
        call_ms = CALL_MS.read(view, reference) or view.vitals.call_ms.p50
        return Recording(
            title=_title(view),
            entry=ledger[episode],
            record=record,
            actions=actions[number].of(record.i, record.attempt),
            call_s=call_ms / 1000,
            replan_steps=view.trial.spec.suite.replan_steps,
        )

    return [[recording(number, film.episode) for number in film.trials] for film in films]


def _title(view: TrialView) -> str:
    """The trial's number and its plan, or what was searched of it."""
    params = short_params(view.trial.params)
    settings = " ".join(f"{key}={shown(value)}" for key, value in params.items())
    return f"trial {view.number}: {view.trial.name or settings}"
