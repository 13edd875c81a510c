"""What an evaluation does before its first episode: logged, and in a file for whoever watches."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from duqsweep import files
from duqsweep.worker import pulse

log = logging.getLogger(__name__)

_folder: Path | None = None  # of the trial that this process prepares


@contextmanager
def shown_in(trial_dir: Path) -> Iterator[None]:
    """The phases of the block are written to `phase.json` in a trial's folder, gone afterwards."""
    global _folder
    before, _folder = _folder, trial_dir
    try:
        yield
    finally:
        _folder = before
        (trial_dir / files.PHASE_JSON).unlink(missing_ok=True)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Log how many seconds the block took, and show its name while it runs."""
    pulse.advance()
    if _folder is not None:
        files.write_json(_folder / files.PHASE_JSON, {"phase": name, "since_s": time.time()})
    start = time.perf_counter()
    yield
    pulse.advance()
    log.info("%s: %.2f s", name, time.perf_counter() - start)
