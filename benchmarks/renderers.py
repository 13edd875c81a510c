"""Compare the images of OSMesa and EGL on this machine, and their rendering times.

    python benchmarks/renderers.py --suite duq_mini libero_spatial --out FILE.json

For each suite every task is put into its first initial state, settled, and drawn by both cameras,
each renderer in a process of its own. Official suites need LIBERO's assets. Differences are of
8-bit values: mean and largest over all pixels, and the share of pixels that differ by more than 8.
A machine without OSMesa keeps its pictures with `--renderer egl --keep FOLDER`; another machine
compares them with its own by `--renderer osmesa --against FOLDER`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from duqsweep.control.config.sweep_config import compose
from duqsweep.envs.libero import LiberoEnvironment, open_environment
from duqsweep.envs.rendering import EGL, OSMESA, egl_device
from duqsweep.spec import LedgerEntry, SuiteSpec

REPEATS = 20  # observations timed per task
VISIBLE = 8  # of 255


def suite_of(suite: str, renderer: str) -> SuiteSpec:
    """The shipped constants of a suite."""
    words = ["name=renderers", "enqueue=[reference]", f"suite={suite}"]
    return compose([*words, f"suite.renderer={renderer}"]).base.suite


def draw(suite: str, renderer: str, out: Path) -> None:
    """Write the images of all tasks to a file, and print milliseconds per observation."""
    suite_spec = suite_of(suite, renderer)
    environment = open_environment(suite_spec)
    assert isinstance(environment, LiberoEnvironment)
    pictures, seconds = [], []
    for task in range(suite_spec.tasks):
        seen = environment.reset(LedgerEntry(0, suite, task, 0, suite_spec.seed))
        pictures += [seen.images[camera] for camera in sorted(seen.images)]
        for _ in range(REPEATS):
            start = time.perf_counter()
            environment.observe()
            seconds.append(time.perf_counter() - start)
    environment.close()
    np.save(out, np.stack(pictures))
    print(json.dumps({"observation_ms": 1e3 * float(np.median(seconds))}))


def compare(suite: str, renderers: list[str], folder: Path, others: Path) -> dict[str, object]:
    """One row of the table: what `renderers` draw now into `folder`, beside what is in `others`."""
    row: dict[str, object] = {"suite": suite, "image_px": suite_of(suite, OSMESA).image_px}
    for renderer in renderers:
        out = folder / f"{suite}-{renderer}.npy"
        command = [sys.executable, __file__, "--draw", suite, renderer, str(out)]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row[f"{renderer}_ms"] = json.loads(run.stdout.splitlines()[-1])["observation_ms"]
    found = {path.name: path for place in (folder, others) for path in place.glob(f"{suite}-*.npy")}
    row["pictures"] = sorted(found)
    if len(found) != 2:
        return row
    one, other = (np.load(path).astype(np.int16) for path in found.values())
    apart = np.abs(one - other)
    row["mean_difference"] = float(apart.mean())
    row["largest_difference"] = int(apart.max())
    row["visible_share"] = float((apart.max(-1) > VISIBLE).mean())
    return row


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", nargs="+", default=["duq_mini"])
    parser.add_argument("--renderer", nargs="+", default=[OSMESA, EGL], choices=(OSMESA, EGL))
    parser.add_argument("--keep", type=Path, help="an existing folder for the pictures")
    parser.add_argument("--against", type=Path, help="pictures that another machine kept")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--draw", nargs=3, metavar=("SUITE", "RENDERER", "OUT"))
    parsed = parser.parse_args()
    if parsed.draw:
        draw(parsed.draw[0], parsed.draw[1], Path(parsed.draw[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        here = parsed.keep or Path(folder)
        others = parsed.against or here
        rows = [compare(suite, parsed.renderer, here, others) for suite in parsed.suite]
    cores = len(os.sched_getaffinity(0))
    found = {"egl_device": egl_device(), "cpu_cores": cores, "rows": rows}
    print(json.dumps(found, indent=2))
    if parsed.out:
        parsed.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
