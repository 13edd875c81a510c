"""The command line as a user types it, a sweep small enough to repeat, and what its files say."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import duqsweep
from duqsweep import files

Here = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(duqsweep.__file__).parent.parent
CONF = Path(__file__).parent / "conf"
TRIALS, EPISODES = 4, 4  # of conf/sweep/small.yaml
SMALL = ("+sweep=small", "--config-dir", str(CONF))
MODULE = ("-m", "duqsweep")


@dataclass(frozen=True)
class Finished:
    """A sweep that was run to its end by one command."""

    folder: Path
    words: tuple[str, ...]
    process: subprocess.CompletedProcess[str]


def start(
    words: Sequence[str],
    cwd: Path,
    stdout: IO[str] | int = subprocess.PIPE,
    program: Sequence[str] = MODULE,
    **environment: str,
) -> subprocess.Popen[str]:
    """Start `python PROGRAM WORDS` in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, *program, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Whoever runs these tests in the background of a shell has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(words: Sequence[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m duqsweep WORDS` to its end."""
    process = start(words, cwd, **environment)
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def with_cache(folder: Path, finished: Finished) -> Path:
    """Give a sweep that will begin what calibration and timing see: seconds to collect."""
    shutil.copytree(finished.folder / files.CACHE_DIR, folder / files.CACHE_DIR)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    """File → hash of its content, without the controller's lock."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".controller"
    }


def trial_dirs(sweep_dir: Path) -> list[Path]:
    return sorted((sweep_dir / files.TRIALS_DIR).iterdir())


def walks(sweep_dir: Path) -> dict[str, Any]:
    """Fingerprint of each trial → everything about its evaluation that no clock decides."""
    found = {}
    for folder in trial_dirs(sweep_dir):
        vitals = files.read_json(folder / files.VITALS_JSON)
        episodes = files.read_lines(folder / files.EPISODES_JSONL)
        told = ("i", "task", "init_state", "seed", "success", "steps", "calls", "error")
        found[files.read_json(folder / files.SPEC_JSON)["fingerprint"]] = {
            "action_error": vitals["action_error"],
            "bits": vitals["bits"],
            "weights_mb": vitals["weights_mb"],
            "episodes": [[episode[key] for key in told] for episode in episodes],
        }
    return found
