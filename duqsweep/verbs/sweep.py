"""`duqsweep +sweep=NAME …`: start a sweep, or resume it where it stopped."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from duqsweep import exit_codes, files
from duqsweep.background import in_background
from duqsweep.control.config.overrides import check_effect
from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import SweepConfig, as_yaml, check_inputs, load, to_config
from duqsweep.control.expected import expected
from duqsweep.control.front.importance import Importance
from duqsweep.control.front.records import Front
from duqsweep.control.mending import mend_identity, mend_sweep
from duqsweep.control.protocols import Search
from duqsweep.control.sweep_format import check_format
from duqsweep.control.trials.phase import read_phase
from duqsweep.control.view.console import open_console
from duqsweep.control.view.decomposition import HEADER, decomposition, untimed_line
from duqsweep.control.view.trouble import trouble_text
from duqsweep.control.view.wording import repeats_line
from duqsweep.errors import ConfigError
from duqsweep.masking import masked
from duqsweep.result import ENDINGS
from duqsweep.verbs.as_job import (
    AS_JOB,
    IN_JOB,
    LOCK_WAIT_S,
    hand_over,
    refuse_second,
    submit_controller,
    time_left_s,
)
from duqsweep.verbs.command import command
from duqsweep.verbs.explain import table
from duqsweep.verbs.folder import keep_explained_front, sweep_front, tracking_uri
from duqsweep.verbs.interrupt import HandOver, terminate_as_interrupt
from duqsweep.verbs.notify import ERROR, VARIABLES, Notice
from duqsweep.verbs.screens import MLFLOW_WAIT_S
from duqsweep.verbs.twins import TimedTwins, time_twins
from duqsweep.verbs.undo import undone_if_refused
from duqsweep.worker.ledger import check_ledger, make_ledger, write_ledger
from duqsweep.worker.simulator import check_simulator, write_simulator

# What the end of a sweep makes of its other files; too few trials have no importances.
AT_THE_END = (*files.REPORT_FILES, files.DASHBOARD_LOG, files.IMPORTANCES_JSON)
OPTIONS = f"--cfg job, --config-dir DIR, --notify CMD, {AS_JOB}"
ASK = """\
{running} trials are running.
  y  they continue without this process; this command re-attaches to them:
     {command}
  n  they end now; finished episodes are kept, the others are played again
Let them continue? [Y/n] """


def main(arguments: list[str]) -> int:
    """Run the sweep that the overrides ask for.

    Returns:
        0; 3 when more trials failed than tolerated; 130 when it was interrupted or stopped.
    """
    parser = argparse.ArgumentParser(prog="duqsweep", add_help=False, allow_abbrev=False)
    parser.add_argument("--cfg", choices=("job",), help="print the configuration and stop")
    parser.add_argument("--config-dir", type=Path, help="a folder laid out as conf/")
    parser.add_argument("--notify", metavar="CMD", help=f"run at the end, with {VARIABLES} set")
    parser.add_argument(AS_JOB, action="store_true", help="submit the controller to SLURM")
    parser.add_argument(IN_JOB, action="store_true", help="what such a job runs")
    parsed, overrides = parser.parse_known_args(arguments)
    unknown = [word for word in overrides if word.startswith("-")]
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]}; options are {OPTIONS}")
    composed = load(overrides, parsed.config_dir)
    config = to_config(composed)
    if parsed.cfg:
        print(masked(as_yaml(composed)), end="")
        return 0
    if parsed.as_job and config.launcher.name != "slurm":
        raise ConfigError(f"{AS_JOB} makes the controller a job of SLURM: add launcher=slurm")
    check_inputs(config)
    space = Space.from_config(config)
    check_effect(overrides, space)
    _check_earlier_run(config)
    refuse_second(config.directory)
    from duqsweep.control.study.controller_lock import controller_lock

    # The notice is given when the lock is free again: its command may be another verb.
    with Notice(parsed.notify, config.name, config.directory) as notice, ExitStack() as held:
        with undone_if_refused(config.directory):
            wait_s = LOCK_WAIT_S if parsed.in_job else 0.0
            held.enter_context(controller_lock(config.directory, wait_s))
            words = [AS_JOB if word == IN_JOB else word for word in arguments]
            run = _Run(config, space, words)
            if parsed.as_job:
                refuse_second(config.directory)  # another --as-job may have been faster
                return submit_controller(config)
        notice.state = ERROR
        notice.code = run.main(time_left_s(config) if parsed.in_job else None)
        notice.state = None if run.is_handed_over else run.ending
    return hand_over() if run.is_handed_over else notice.code


def _check_earlier_run(config: SweepConfig) -> None:
    path = config.directory / files.SWEEP_YAML
    if config.directory.exists() and not os.access(config.directory, os.W_OK):
        raise ConfigError(f"cannot write the sweep's folder {config.directory}; set dir=FOLDER")
    if path.exists() and not os.access(path, os.R_OK):
        raise ConfigError(f"cannot read {path}")
    check_format(config.directory)


def _search_class(config: SweepConfig) -> Callable[..., Search]:
    if config.shares_out:  # SciPy, which its model needs, is slow to import
        from duqsweep.control.study.kghv_search import KghvSearch

        return KghvSearch
    from duqsweep.control.study.search import FixedBudgetSearch

    return FixedBudgetSearch


class _Run:
    """One run of the controller; it holds the folder's lock."""

    def __init__(self, config: SweepConfig, space: Space, arguments: Sequence[str] = ()) -> None:
        # Imported here, because --help and --cfg must not pay for Optuna and submitit.
        from duqsweep.control.dispatch.dispatcher import open_dispatcher
        from duqsweep.control.study.early_stopping import PruneSlow
        from duqsweep.control.study.identity import check_folder, identity
        from duqsweep.control.study.optuna_study import open_study
        from duqsweep.control.tracking.mlflow_client import default_uri
        from duqsweep.control.tracking.refusals import check_server
        from duqsweep.control.tracking.runids import remember_target
        from duqsweep.control.tracking.tracker import open_tracker
        from duqsweep.control.trials.reader import TrialReader

        self.ending = "interrupted"  # or how its loop ended
        self._command = command(arguments)
        self._config = config
        self._space = space
        self._importances: Future[tuple[Importance, ...]] | None = None  # begun beforehand
        self.is_handed_over = False  # the next run of this job shall go on
        self._dir = config.directory
        # Whatever may be refused comes before anything is written.
        self._uri = tracking_uri(config)
        parts = identity(config, space)
        check_folder(self._dir, parts)
        if self._uri is not None and not any((self._dir / files.TRIALS_DIR).glob("*")):
            check_server(self._uri)  # that of a sweep that has begun is waited for
        self._ledger = make_ledger(config.base.suite)
        self._mended = mend_sweep(self._dir, self._ledger)
        self._simulator = check_simulator(self._dir, config.base.suite)
        check_ledger(self._dir / files.LEDGER_JSON, self._ledger)
        self._dispatcher = open_dispatcher(config.launcher, self._dir)
        self._reader = TrialReader(self._dir)
        study = open_study(config, space, self._reader.read(), self._mended.append)
        self._study = study
        self._write_folder(f"# space: {space.hash}\n{config.yaml}", parts)
        if not config.shares_out:  # this sampler has no model that keeps it up to date
            (self._dir / files.POSTERIOR_JSON).unlink(missing_ok=True)
        # A search that shares out episodes pauses the losing trials by itself.
        self._stopping = PruneSlow(config, self._reader, against_trials=not config.shares_out)
        search = _search_class(config)
        self._search = search(study, space, config, self._stopping, self._reader)
        if config.tracking.name != "none":
            remember_target(self._dir, self._uri or default_uri(self._dir))
        self._tracker = open_tracker(config.tracking.name, self._dir, self._uri, self._reader)

    def _write_folder(self, sweep_yaml: str, parts: dict[str, Any]) -> None:
        (self._dir / files.STOP).unlink(missing_ok=True)
        if not (self._dir / files.LEDGER_JSON).exists():
            write_ledger(self._dir / files.LEDGER_JSON, self._ledger)
        write_simulator(self._dir, self._simulator)
        self._mended += mend_identity(self._dir, parts)
        path = self._dir / files.SWEEP_YAML
        self._resettled = not path.exists() or path.read_bytes() != sweep_yaml.encode()
        if self._resettled:
            files.write_text(path, sweep_yaml, private=masked(sweep_yaml) != sweep_yaml)

    def main(self, hand_over_after_s: float | None = None) -> int:
        """Run the loop, and hand over to the next run after a while, if so; show the result."""
        from duqsweep.control.dispatch.simulators import simulator_hint
        from duqsweep.control.sweep import Parts, Sweep
        from duqsweep.control.sweep_files import FrontFiles, TrialFiles
        from duqsweep.control.view.live import open_progress
        from duqsweep.control.view.progress import Plan

        config = self._config
        before = self._results()
        absent = [name for name in AT_THE_END if not (self._dir / name).exists()]
        ended = frozenset(int(path.parent.name) for path in before)
        plan = Plan(
            sweep=config.name,
            trials=config.most_trials,
            episodes_per_trial=config.budget.episodes_per_trial,
            ended=ended,
            shared_episodes=config.total_episodes if config.shares_out else None,
            expected_s=None if (planned := expected(config)) is None else planned.time_s,
            hint=partial(simulator_hint, config.launcher, self._dispatcher.capacity),
            phase=lambda number: read_phase(files.trial_dir(self._dir, number)),
        )
        trouble = twins = None
        try:
            with (
                terminate_as_interrupt(hand_over_after_s),
                open_progress(plan) as progress,
                files.waiting_out(progress.message),
            ):
                for line in self._mended:
                    progress.message(line)
                self._tracker.sweep_started()
                parts = Parts(
                    search=self._search,
                    stopping=self._stopping,
                    dispatcher=self._dispatcher,
                    trials=TrialFiles(self._dir, self._reader, progress.message),
                    front=FrontFiles(self._dir, config.objectives, margin=config.margin),
                    progress=progress,
                    tracker=self._tracker,
                )
                sweep = Sweep(self._dir, parts)
                self.ending = sweep.run()
                trouble = trouble_text(self.ending, sweep.deaths, "the same command")
        except KeyboardInterrupt as interrupt:
            self.is_handed_over = isinstance(interrupt, HandOver)
            self._interrupted()
        else:
            try:
                if self.ending == "finished" and config.budget.twins:
                    if before != self._results():
                        self._begin_the_report()
                    twins = self._time_twins()
            finally:
                self._dispatcher.close(end_jobs=True)
        nothing_new = before == self._results() and not (twins and twins.is_new)
        code = self._finish(self.ending, trouble, nothing_new, absent)
        if twins is not None and twins.is_new:
            twins.report()  # what the sweep itself has found does not depend on it
        return code

    def _results(self) -> dict[Path, int]:
        """Every result, and when it was written."""
        paths = (self._dir / files.TRIALS_DIR).glob(f"*/{files.RESULT_JSON}")
        return {path: path.stat().st_mtime_ns for path in paths}

    def _begin_the_report(self) -> None:
        """Do what the report needs of the sweep itself, in a thread while twins are timed."""
        from duqsweep.control.kghv.importances import importances
        from duqsweep.control.report import picture

        views = self._reader.read()

        def begin() -> tuple[Importance, ...]:
            picture.load()
            return importances(self._space, views)

        self._importances = in_background(begin)

    def _time_twins(self) -> TimedTwins | None:
        """Time the unquantized twins of the front's points; None where that was interrupted."""
        views = self._reader.read()
        try:
            front = sweep_front(self._config, views)
            return time_twins(self._config, front, views, self._dispatcher)
        except KeyboardInterrupt:
            print("interrupted: the sweep itself is finished; the same command times what is left")
            return None

    def _interrupted(self) -> None:
        """Ask once whether jobs continue; without an answer they do."""
        end_jobs = False
        running = len(self._dispatcher.pending())
        if running and sys.stdin.isatty() and sys.stdout.isatty():
            try:
                answer = input(ASK.format(running=running, command=self._command))
                end_jobs = answer.strip().lower().startswith("n")
            except (KeyboardInterrupt, EOFError):
                print()
        self._dispatcher.close(end_jobs)
        jobs = "" if self._config.launcher.name == "inline" else "jobs continue, "
        jobs = "jobs ended, " if end_jobs else jobs
        if self.is_handed_over:
            print(f"handed over: {jobs}nothing is lost; this job is queued again and resumes here")
            return
        print(
            f"interrupted: {jobs}nothing is lost; the same command resumes from here:\n"
            f"  {self._command}"
        )

    def _finish(
        self, ending: str, trouble: str | None, nothing_new: bool, absent: Sequence[str]
    ) -> int:
        from duqsweep.control.report.report import print_front, write_report
        from duqsweep.control.tracking.links import links
        from duqsweep.control.trials.reader import read_trials

        views = read_trials(self._dir)
        finished = ending == "finished"
        if finished and views and (absent or not nothing_new):
            begun = self._importances
            front = keep_explained_front(self._config, views, begun.result() if begun else None)
        else:
            front = sweep_front(self._config, views)
        was_over = nothing_new and finished and not trouble
        lost = [name for name in absent if name != files.IMPORTANCES_JSON or front.importances]
        if was_over:
            changed = self._changed(lost if views else [])
            print(f"{self._config.name} is finished: nothing was left to do, {changed}")
        if views and (lost or not was_over):
            write_report(self._dir, front, views, self._config.base)
            self._study.write_dashboard(self._dir)
            self._tracker.front_changed(front)
        missing = self._tracker.close(MLFLOW_WAIT_S if finished else 5.0)
        if finished:
            print_front(front)
            factors = decomposition(front)
            if factors:
                print(f"\n{table([HEADER, *factors])}\n")
            untimed = untimed_line(front, shlex.quote(str(self._dir)))
            if untimed:
                open_console().print(untimed, highlight=False)
            repeats = repeats_line([view.number for view in views])
            if repeats:
                print(repeats)
            print(f"files:    {self._dir}")
            print(f"report:   {self._dir / files.REPORT_HTML}")
            dashboard = self._dir / files.DASHBOARD_LOG
            if dashboard.exists():  # a folder of an older version has none
                print(f"Optuna:   optuna-dashboard {shlex.quote(str(dashboard))}")
        if missing:
            print(missing)
        elif self._config.tracking.name != "none":
            print("\n".join(links(self._dir, self._uri)))
        if trouble:
            print(trouble, file=sys.stderr)
            return exit_codes.ERROR
        return self._exit_code(ending, front)

    def _changed(self, lost: Sequence[str]) -> str:
        """What a start of a finished sweep changed; `lost` are files that it wrote again."""
        changed = [f"{files.SWEEP_YAML} holds the new settings"] if self._resettled else []
        if lost:
            changed.append(f"what was missing is written again: {', '.join(lost)}")
        return ", ".join(changed) or "nothing was changed"

    def _exit_code(self, ending: str, front: Front) -> int:
        if ending != "finished":
            return exit_codes.INTERRUPTED
        counts = front.counts
        ended = sum(counts[name] for name in ENDINGS)
        tolerated = self._config.budget.tolerated_failures * ended
        if counts["failed"] > tolerated:
            print(
                f"{counts['failed']} of {ended} trials failed, "
                f"budget.tolerated_failures={self._config.budget.tolerated_failures:g} allows "
                f"{tolerated:.0f}: see "
                f"`python -m duqsweep status {shlex.quote(str(self._dir))}`",
                file=sys.stderr,
            )
            return exit_codes.FAILED_TRIALS
        return 0
