"""Times one policy call in many forms, from the prototype to one CUDA graph: a table and JSON.

Full-size pi0.5 with random weights in bf16 on a GPU, the embedded policy's sizes in fp32 on a CPU.
Batch 1, two cameras or as many as asked for, no padded token. Graphs are a GPU's; on a CPU those
forms are compiled only.
Exit code 1 when a form failed or there was no time for it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import torch
from latency import FURTHER, TELLING
from latency.bench import Bench
from latency.floors import Ceilings, ceilings, floor_ms
from latency.machine import machine, name_on
from latency.measure import measure, time_limit
from latency.registry import FORMS, Form
from latency.table import HEAD, Row, document, line

from duqsweep.control.explain.cost import CAMERAS_SEEN
from duqsweep.files import write_json


def main() -> int:
    """Run the forms, print and write the table."""
    options = _options()
    begun = perf_counter()
    torch._dynamo.config.recompile_limit = 64  # a layer's code serves many forms and horizons
    with torch.no_grad():
        shapes = list(itertools.product(options.horizon, options.cameras))
        first = Bench(options.policy, options.device, options.num_steps, *shapes[0])
        others = [first.at(*shape) for shape in shapes[1:]]
    best = ceilings(first)
    facts = machine(first, best)
    print(json.dumps(facts), HEAD, sep="\n", flush=True)
    rows: list[Row] = []
    failed: list[str] = []
    for bench, form in _work(options, first, others):
        name = name_on(bench, form.name)
        label = f"{name} with {bench.cameras} cameras at horizon {bench.horizon}"
        if perf_counter() - begun > options.total:
            failed.append(f"{label}: no time left")
            continue
        try:
            with time_limit(options.limit):
                rows.append(_row(bench, form, best, options.seconds))
        except Exception as error:  # one failing form must not stop the others
            failed.append(f"{label}: {type(error).__name__}: {str(error)[:300]}")
            print(failed[-1], flush=True)
            continue
        print(line(rows[-1], rows), flush=True)
        if options.out:
            write_json(options.out, document(facts, rows))
    print("", HEAD, *(line(row, rows) for row in rows), *failed, sep="\n")
    return 1 if failed else 0


def _work(
    options: argparse.Namespace, first: Bench, others: list[Bench]
) -> Iterator[tuple[Bench, Form]]:
    """The requested forms, the most important ones first."""
    for names in (TELLING, FURTHER):
        chosen = [FORMS[name] for name in names if re.search(options.forms, name)]
        chosen = [form for form in chosen if options.device == "cuda" or not form.gpu_only]
        yield from ((first, form) for form in chosen)
        yield from (
            (bench, form)
            for bench in others
            for form in chosen
            if bench.horizon == first.horizon or not form.first_horizon_only
        )


def _row(bench: Bench, form: Form, best: Ceilings, seconds: float) -> Row:
    measured = measure(bench, form, seconds)
    floor = floor_ms(bench, form, best)
    name = name_on(bench, form.name)
    return Row(name, bench.cameras, bench.horizon, form.quant is None, floor, measured)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, choices=("cpu", "cuda"))
    parser.add_argument("--policy", help="default: pi05_libero on a GPU, embedded on a CPU")
    parser.add_argument("--horizon", type=int, nargs="+", help="default: 10 50; on a CPU 10")
    parser.add_argument("--cameras", type=int, nargs="+", default=[CAMERAS_SEEN], help="default: 2")
    parser.add_argument("--forms", default="", help="regex; default: all")
    parser.add_argument("--num-steps", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0, help="of timed calls a form")
    parser.add_argument("--limit", type=int, default=120, help="seconds a form may take")
    parser.add_argument("--total", type=float, default=math.inf, help="seconds; then no new form")
    parser.add_argument("--out", type=Path, help="JSON file, written anew after each form")
    options = parser.parse_args()
    gpu = options.device == "cuda"
    options.policy = options.policy or ("pi05_libero" if gpu else "embedded")
    options.horizon = options.horizon or ([10, 50] if gpu else [10])
    return options


if __name__ == "__main__":
    sys.exit(main())
