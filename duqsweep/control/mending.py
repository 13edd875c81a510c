"""Mends a sweep's folder before the controller starts: damaged files are moved aside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from duqsweep import files
from duqsweep.control.front.simulator import sweep_simulator
from duqsweep.control.tracking.runids import KEYS as TRACKING_KEYS
from duqsweep.control.trials.quarantine import DAMAGE, mend_trials, put_aside
from duqsweep.control.trials.reader import read_trials
from duqsweep.control.trials.reference import ensure_reference, sweep_reference
from duqsweep.errors import EvaluationError, SpecError
from duqsweep.spec import LedgerEntry
from duqsweep.worker.ledger import read_ledger, write_ledger
from duqsweep.worker.simulator import read_simulator, write_simulator


def mend_sweep(sweep_dir: Path, ledger: list[LedgerEntry]) -> list[str]:
    """Move what is damaged to `quarantine/`, and write again what follows from the rest.

    The reference time and the simulator follow from the trials.

    Args:
        sweep_dir: A sweep's folder, held by this process; a new one stays as it is.
        ledger: The episodes that the sweep plays.

    Returns:
        A line for people for each file that was moved.
    """
    if not (sweep_dir / files.TRIALS_DIR).is_dir():
        return []
    said = mend_trials(sweep_dir)

    def check_ledger(folder: Path) -> None:
        if read_ledger(folder / files.LEDGER_JSON) != ledger:
            raise SpecError("it is not the ledger of this suite and seed")

    def check_tracking(folder: Path) -> None:
        files.read_object(folder / files.TRACKING_JSON, TRACKING_KEYS)

    checks: dict[str, Callable[[Path], Any]] = {
        files.LEDGER_JSON: check_ledger,
        files.REFERENCE_JSON: sweep_reference,
        files.SIMULATOR_JSON: read_simulator,
        files.TRACKING_JSON: check_tracking,
    }
    for name, check in checks.items():
        path = sweep_dir / name
        try:
            if path.exists():
                check(sweep_dir)
        except DAMAGE as error:
            said.append(put_aside(sweep_dir, path, error))
    if not (sweep_dir / files.LEDGER_JSON).exists():
        write_ledger(sweep_dir / files.LEDGER_JSON, ledger)
    views = read_trials(sweep_dir)
    ensure_reference(sweep_dir, views)
    simulator = sweep_simulator(views)
    write_simulator(sweep_dir, None if simulator is None else simulator.info)
    return said


def mend_identity(sweep_dir: Path, parts: Mapping[str, Any]) -> list[str]:
    """Write what makes the sweep this one, once the study has confirmed it.

    Returns:
        A line for people where a damaged file was moved.
    """
    path = sweep_dir / files.IDENTITY_JSON
    said = []
    try:
        if path.exists() and files.read_json(path) == parts:
            return []
    except EvaluationError as error:
        said.append(put_aside(sweep_dir, path, error))
    files.write_json(path, parts)
    return said
