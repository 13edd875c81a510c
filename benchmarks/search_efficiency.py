"""How many episodes each sampler needs, on simulated ground truths: a table, a figure and JSON.

No policy is run: `search/truths.py` says what every point really is, `search/simulation.py` plays a
sweep in simulated time. Every sampler of the project is compared, each of Optuna's with a fixed
number of episodes per trial (tpe-100: 100); `grid` cannot enumerate these spaces, where they are
small it is random search. All start from the same points. The truths of the table were not looked
at while the sampler was written; `--development` runs those that were.

Runs that are in the file already are not repeated, so that an interrupted command continues and a
later one with more seeds adds to them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from search.methods import METHODS
from search.simulation import BEST, Record, Sweep, best_volume
from search.truths import DEVELOPMENT, FINAL, Truth

from duqsweep.files import append_line, read_lines, write_json

RESULTS = Path(__file__).parent / "results"
RIVAL, AT = "tpe-100", 4000  # whose hypervolume after so many episodes is to be reached
RECORD_EVERY = 50  # episodes
# Episodes that a run plays; those of kghv end where the comparison is decided.
BUDGETS = {("kghv", 1): 2400, ("kghv", 8): 2400}
SHOWN = (500, 1000, 2000, 4000)
WORKERS = (1, 8)


@dataclass(frozen=True, order=True)
class Run:
    """One simulated sweep."""

    seed: int
    workers: int
    truth: str
    method: str

    @property
    def budget(self) -> int:
        """Episodes."""
        return BUDGETS.get((self.method, self.workers), AT)


@dataclass(frozen=True)
class Curve:
    """Medians over seeds, one value per `RECORD_EVERY` episodes."""

    volumes: np.ndarray  # (seeds, records)
    gpu_h: np.ndarray
    optimism: np.ndarray

    @property
    def median(self) -> np.ndarray:
        """Of the hypervolume."""
        return np.median(self.volumes, axis=0)

    def at(self, episodes: int) -> float | None:
        """The median hypervolume after so many episodes; None beyond the budget."""
        place = episodes // RECORD_EVERY
        return float(self.median[place]) if place < len(self.median) else None

    def first(self, volume: float) -> int | None:
        """Episodes after which the median first reaches a hypervolume; None: never."""
        reached = np.flatnonzero(self.median >= volume)
        return int(reached[0]) * RECORD_EVERY if len(reached) else None


def main() -> int:
    """Run what is missing, then write and print the results."""
    options = _options()
    truths = DEVELOPMENT if options.development else FINAL
    known = {_run_of(line): line for line in read_lines(options.runs)}
    wanted = [
        run
        for seed in range(options.seeds)
        for workers in options.workers
        for truth in truths
        for method in options.methods
        if (run := Run(seed, workers, truth, method)) not in known
    ]
    print(f"{len(known)} runs are known, {len(wanted)} are missing", file=sys.stderr)
    for line in _played(wanted, options.jobs):
        append_line(options.runs, line)
        known[_run_of(line)] = line
    curves = _curves([line for run, line in known.items() if run.truth in truths])
    document = _document(curves, truths)
    write_json(options.out, document)
    print(_table(curves, list(truths)))
    _draw(curves, list(truths), options.out.with_suffix(".png"))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--workers", nargs="+", type=int, choices=WORKERS, default=list(WORKERS))
    parser.add_argument("--development", action="store_true", help="the truths to tune on")
    parser.add_argument("--runs", type=Path, default=None, help="file of single runs")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    name = "search_development" if options.development else "search_efficiency"
    options.runs = options.runs or RESULTS / f"{name}_runs.jsonl"
    options.out = options.out or RESULTS / f"{name}.json"
    return options


def _played(runs: Sequence[Run], jobs: int) -> Iterator[dict[str, object]]:
    if jobs == 1:
        yield from map(_play, runs)
        return
    with ProcessPoolExecutor(jobs) as pool:
        for future in as_completed([pool.submit(_play, run) for run in runs]):
            yield future.result()


def _truth(name: str) -> Truth:
    truth = {**DEVELOPMENT, **FINAL}[name]()
    path = RESULTS / "search_best_volumes.json"
    if path.exists():
        BEST.update(json.loads(path.read_text(encoding="utf-8")))
    if name not in BEST:
        best_volume(truth)
        write_json(path, BEST)
    return truth


def _play(run: Run) -> dict[str, object]:
    truth = _truth(run.truth)
    method = METHODS[run.method](truth, run.seed, run.workers)
    records = Sweep(truth, run.seed, run.workers, run.budget).run(method, RECORD_EVERY)
    return {
        "truth": run.truth,
        "method": run.method,
        "workers": run.workers,
        "seed": run.seed,
        **_columns(records[: run.budget // RECORD_EVERY + 1]),
    }


def _columns(records: Sequence[Record]) -> dict[str, list[float]]:
    return {
        "volumes": [round(record.volume, 4) for record in records],
        "gpu_h": [round(record.gpu_h, 2) for record in records],
        "optimism": [round(record.optimism, 4) for record in records],
    }


def _run_of(line: Mapping[str, object]) -> Run:
    return Run(line["seed"], line["workers"], line["truth"], line["method"])  # type: ignore[arg-type]


def _curves(lines: Sequence[Mapping[str, object]]) -> dict[tuple[str, str, int], Curve]:
    """(truth, method, workers) → its curve."""
    found: dict[tuple[str, str, int], list[Mapping[str, object]]] = {}
    for line in lines:
        found.setdefault((line["truth"], line["method"], line["workers"]), []).append(line)  # type: ignore[arg-type]
    return {
        key: Curve(*(_rows(runs, name) for name in ("volumes", "gpu_h", "optimism")))
        for key, runs in found.items()
    }


def _rows(runs: Sequence[Mapping[str, object]], name: str) -> np.ndarray:
    rows = [run[name] for run in runs]
    length = max(map(len, rows))
    # A search that found nothing more to do keeps its last front.
    return np.array([[*row, *[row[-1]] * (length - len(row))] for row in rows])


def _document(
    curves: Mapping[tuple[str, str, int], Curve], truths: Mapping[str, object]
) -> dict[str, object]:
    reached: dict[int, dict[str, int | None]] = {workers: {} for workers in WORKERS}
    rows = []
    for (truth, method, workers), curve in sorted(curves.items()):
        rival = curves.get((truth, RIVAL, workers))
        goal = rival.at(AT) if rival else None
        first = curve.first(goal) if goal is not None else None
        if method == "kghv":
            reached[workers][truth] = first
        rows.append(
            {
                "truth": truth,
                "method": method,
                "workers": workers,
                "seeds": len(curve.volumes),
                "hypervolume": {str(n): _rounded(curve.at(n)) for n in SHOWN},
                "episodes_to_tpe100_at_4000": first,
                "episodes_to_95_percent": curve.first(0.95),
                "gpu_h_to_95_percent": _gpu_h(curve, curve.first(0.95)),
                "stated_minus_true_success": _rounded(float(np.median(curve.optimism[:, -1]))),
            }
        )
    return {
        "truths": list(truths),
        "truths_used_for_development": list(DEVELOPMENT),
        "hypervolume": "true one of the recommended front, as a share of the true front's; medians",
        "episodes_to_tpe100_at_4000": reached[1],
        "episodes_to_tpe100_at_4000_with_8_workers": reached[8],
        "rows": rows,
    }


def _gpu_h(curve: Curve, episodes: int | None) -> float | None:
    if episodes is None:
        return None
    return round(float(np.median(curve.gpu_h[:, episodes // RECORD_EVERY])), 2)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _table(curves: Mapping[tuple[str, str, int], Curve], truths: Sequence[str]) -> str:
    """Markdown: one line per method and number of workers, one column per truth."""
    lines = []
    for workers in WORKERS:
        shown = [m for m in METHODS if any((t, m, workers) in curves for t in truths)]
        if not shown:
            continue
        lines += [
            f"\nMedian hypervolume after 500 / 1000 / 2000 / 4000 episodes, {workers} workers; in "
            f"brackets the episodes after which it first is {RIVAL}'s at {AT}\n",
            f"| method | seeds | {' | '.join(truths)} |",
            f"|---|---|{'---|' * len(truths)}",
        ]
        for method in shown:
            cells = [_cell(curves, truth, method, workers) for truth in truths]
            seeds = [
                len(curves[t, method, workers].volumes)
                for t in truths
                if (t, method, workers) in curves
            ]
            lines.append(f"| {method} | {min(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(
    curves: Mapping[tuple[str, str, int], Curve], truth: str, method: str, workers: int
) -> str:
    curve = curves.get((truth, method, workers))
    if curve is None:
        return ""
    values = [curve.at(n) for n in SHOWN]
    text = " ".join("–" if value is None else f"{value:.2f}"[1:] for value in values)
    rival = curves.get((truth, RIVAL, workers))
    goal = rival.at(AT) if rival else None
    first = curve.first(goal) if goal is not None else None
    return f"{text} ({'–' if first is None else first})"


def _draw(curves: Mapping[tuple[str, str, int], Curve], truths: Sequence[str], path: Path) -> None:
    """Hypervolume against episodes, one panel per truth, one worker; bands are quartiles."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, (len(truths) + 1) // 2, figsize=(14, 6), sharex=True)
    for axis, truth in zip(axes.flat, truths, strict=False):
        for method in METHODS:
            curve = curves.get((truth, method, 1))
            if curve is None:
                continue
            x = np.arange(curve.volumes.shape[1]) * RECORD_EVERY
            (line,) = axis.plot(x, curve.median, label=method, lw=2.2 if method == "kghv" else 1.2)
            low, high = np.percentile(curve.volumes, [25, 75], axis=0)
            axis.fill_between(x, low, high, color=line.get_color(), alpha=0.12, lw=0)
        axis.set_title(truth)
        axis.set_ylim(0.5, 1.0)
    for axis in axes.flat[len(truths) :]:
        axis.set_visible(False)
    axes.flat[0].legend(fontsize=7)
    figure.supxlabel("episodes of the sweep")
    figure.supylabel("true hypervolume of the recommended front / of the true front")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
