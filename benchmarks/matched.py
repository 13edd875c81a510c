"""Our forms at the shapes at which others published a call's time: a table and JSON, in one run.

    python benchmarks/matched.py                     # writes benchmarks/results/matched_CARD.json
    python benchmarks/matched.py --who flash-vla --forms 'bf16|fp8'
    python benchmarks/matched.py --forms fp8 --add   # into that file, beside its other rows

Theirs are figures that they published (`latency/published.py`, each with its source and machine);
ours are measured here, on the GPU at hand: pi0.5 at full size with random weights, in each form
that runs the whole policy in one CUDA graph. Left out are simulated quantization and, at long
chunks, the fused bf16 form, which policies do not run there. Ten steps, batch 1, medians of CUDA
events from an idle GPU. Each figure of ours has the time at which it was measured. Only where both
machines are the same card does a ratio say more about the code than about the card. Shapes that
cannot be matched are rows without ours. On a CPU, the embedded policy's sizes take part only to try
the command. Exit code 1 when a form failed or there was no time for it.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import torch
from latency import FURTHER, TELLING
from latency.bench import Bench
from latency.floors import Ceilings, ceilings, floor_ms
from latency.machine import device_name, machine, name_on
from latency.measure import measure, time_limit
from latency.published import NUM_STEPS, PUBLISHED, Published, Shape
from latency.registry import FORMS, Form

from duqsweep.files import write_json
from duqsweep.kernels.expert.limits import TOKENS

RESULTS = Path(__file__).parent / "results"
WHOLE = re.compile(r"policy_(?!.*fake).*_graph")
FIRST = (
    "w4a8_fused",  # all parts: integers in the image encoder, too
    "w8a8_w4a8_dit",
    "w4a8_llm_dit",
    "w8a8_llm_w4a8_dit",
    "bf16",
    "fp8",
    "w8a8_llm_dit",
)  # measured before all others


@dataclass(frozen=True)
class Ours:
    """One of our forms at one shape, on the machine at hand; without a time, why."""

    form: str
    ms: float | None = None
    p95_ms: float | None = None
    calls: int = 0
    error: float | None = None  # relative, to the eager form with the same weights
    floor_ms: float | None = None
    failure: str | None = None
    measured: str = ""  # when, in UTC; empty: in a run that did not say


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write the table."""
    options = _options(arguments)
    card = device_name(options.device)
    kept = figures_of(options.out, card) if options.add else {}
    begun = perf_counter()
    torch._dynamo.config.recompile_limit = 64  # a layer's code serves many forms and shapes
    rows = [row for row in PUBLISHED if re.search(options.who, row.who)]
    policy = "pi05_libero" if options.device == "cuda" else "embedded"
    with torch.no_grad():
        bench = Bench(policy, options.device, NUM_STEPS, None)
    bench.any_length = True
    best = ceilings(bench)
    facts = machine(bench, best)
    ours: dict[Shape, list[Ours]] = {row.shape: [] for row in rows if row.shape}
    benches = {shape: _at(bench, shape) for shape in ours}
    for form in _forms(options.device, options.forms):  # the most important one at all shapes first
        for shape, at in benches.items():
            if not _is_run_at(form, shape):
                continue
            left = options.total - (perf_counter() - begun)
            ours[shape].append(_measured(at, form, best, left, options))
            print(f"{_words(shape):48} {_line(ours[shape][-1])}", flush=True)
            together = with_kept(ours, kept)
            shown = PUBLISHED if options.add else rows
            if options.out:
                write_json(options.out, document(facts, card, shown, together))
    print("", *table(card, rows, with_kept(ours, kept)), sep="\n")
    return 1 if any(found.ms is None for shape in ours.values() for found in shape) else 0


def _at(bench: Bench, shape: Shape) -> Bench | str:
    """The policy at a shape, or why it has none such."""
    try:
        return bench.at(shape.horizon, shape.cameras, shape.prompt_tokens)
    except ValueError as error:
        return str(error)


def _forms(device: str, wanted: str) -> list[Form]:
    """Forms that run a whole call in one graph, the most important ones first."""
    names = [name for name in (*TELLING, *FURTHER) if WHOLE.fullmatch(name)]
    names.sort(
        key=lambda name: next((i for i, part in enumerate(FIRST) if part in name), len(FIRST))
    )
    forms = [FORMS[name] for name in names if re.search(wanted, name)]
    return [form for form in forms if device == "cuda" or not form.gpu_only]


def _is_run_at(form: Form, shape: Shape) -> bool:
    """Whether a policy runs this form there: long unquantized chunks run compiled, not fused."""
    return form.quant is not None or "fused" not in form.name or shape.horizon <= TOKENS


def _measured(
    bench: Bench | str, form: Form, best: Ceilings, left_s: float, options: argparse.Namespace
) -> Ours:
    if isinstance(bench, str):
        return Ours(form.name, failure=bench)
    name = name_on(bench, form.name)
    if left_s < 0:
        return Ours(name, failure="no time left")
    try:
        with time_limit(options.limit):
            found = measure(bench, form, options.seconds)
    except Exception as error:  # one failing form must not stop the others
        return Ours(name, failure=f"{type(error).__name__}: {str(error)[:200]}")
    floor = floor_ms(bench, form, best)
    now = datetime.now(UTC).isoformat(timespec="minutes")
    return Ours(name, found.ms, found.p95_ms, found.calls, found.error, floor, measured=now)


def figures_of(path: Path, card: str) -> dict[Shape, list[Ours]]:
    """Our figures with a time that a file of this card holds, by shape.

    Raises:
        SystemExit: There is no such file, or its figures are another card's.
    """
    if not path.exists():
        raise SystemExit(f"--add needs a file with figures, and there is no {path}")
    rows = json.loads(path.read_text())["rows"]
    others = {row["ours_on"] for row in rows} - {card}
    if others:
        raise SystemExit(f"{path} has figures of {', '.join(sorted(others))}, and this is a {card}")
    return {
        Shape(**row["shape"]): [Ours(**found) for found in row["ours"] if found["ms"] is not None]
        for row in rows
        if row["shape"]
    }


def with_kept(
    ours: Mapping[Shape, list[Ours]], kept: Mapping[Shape, list[Ours]]
) -> dict[Shape, list[Ours]]:
    """Figures of this run, and those of earlier ones where it has no time for the same form."""
    together = {}
    for shape in {**kept, **ours}:
        earlier = {found.form: found for found in kept.get(shape, [])}
        new = {found.form: found for found in ours.get(shape, [])}
        timed = {form: found for form, found in new.items() if found.ms is not None}
        together[shape] = list({**new, **earlier, **timed}.values())
    return together


def document(
    facts: Mapping[str, object],
    card: str,
    rows: Sequence[Published],
    ours: Mapping[Shape, list[Ours]],
) -> dict[str, object]:
    """The JSON file's content: each published figure with ours beside it."""
    return {
        "machine": dict(facts),
        "ours_are": "measured on this card; `machine` is that of the last run",
        "theirs_are": "published by `who` for `machine`, and not measured here",
        "rows": [
            {
                **asdict(row),
                "same_card": same_card(row, card),
                "ours_on": card,
                "ours": [asdict(found) for found in ours.get(row.shape, [])] if row.shape else [],
            }
            for row in rows
        ],
    }


def same_card(row: Published, card: str) -> bool:
    """Whether a figure was published for the card at hand: names begin alike, e.g. NVIDIA H100."""
    return card.startswith(row.machine)


def table(card: str, rows: Sequence[Published], ours: Mapping[Shape, list[Ours]]) -> Iterator[str]:
    """Published figures, each followed by ours."""
    yield f"ours on: {card}"
    for row in rows:
        shape = _words(row.shape) if row.shape else "no shape in common"
        yield f"{row.who}, {row.machine}, {row.policy}: {row.ms:.2f} ms (published). {shape}"
        yield f"    {row.timed}; {row.remark}; {row.source}"
        for found in ours.get(row.shape, []) if row.shape else []:
            ratio = "" if found.ms is None else f"  theirs / ours {row.ms / found.ms:5.2f}"
            where = "the same card" if same_card(row, card) else "on another card"
            yield f"    ours {_line(found)}{ratio and f'{ratio}, {where}'}"


def _words(shape: Shape) -> str:
    return f"cameras {shape.cameras}, horizon {shape.horizon}, {shape.prompt_tokens} prompt tokens"


def _line(found: Ours) -> str:
    if found.ms is None:
        return f"{found.form:40} {found.failure}"
    return f"{found.form:40} {found.ms:8.3f} ms, error {found.error:.1e}"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, choices=("cpu", "cuda"))
    parser.add_argument("--who", default="", help="regex of publishers; default: all")
    parser.add_argument("--forms", default="", help="regex; default: all of whole calls")
    parser.add_argument("--seconds", type=float, default=0.3, help="of timed calls a form")
    parser.add_argument("--limit", type=int, default=60, help="seconds a form may take")
    parser.add_argument("--total", type=float, default=math.inf, help="seconds; then no new form")
    parser.add_argument(
        "--out", type=Path, help="JSON; default on a GPU: results/matched_CARD.json"
    )
    parser.add_argument(
        "--add", action="store_true", help="keep the file's figures that this run does not replace"
    )
    options = parser.parse_args(arguments)
    if options.out is None and options.device == "cuda":
        options.out = RESULTS / f"matched_{_slug(torch.cuda.get_device_name())}.json"
    if options.add and options.out is None:
        parser.error("--add needs --out on a CPU")
    return options


def _slug(card: str) -> str:
    """NVIDIA H100 80GB HBM3 → h100."""
    words = [word for word in card.lower().split() if word not in ("nvidia", "geforce")]
    return re.sub(r"\W", "", words[0])


if __name__ == "__main__":
    sys.exit(main())
