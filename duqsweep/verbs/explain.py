"""`duqsweep explain`: the cost model of a policy call, and the settings of a trial, as tables."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import MISSING

from duqsweep.checkpoint.locate import policy_sizes
from duqsweep.checkpoint.sizes import sizes_of
from duqsweep.control.config.settings import DECLARED, LAYERS
from duqsweep.control.config.sweep_config import compose
from duqsweep.control.explain.cost import PartCost, call_costs
from duqsweep.control.explain.document import PROTOTYPE, Document, comparison, mistakes
from duqsweep.control.trials.reader import REFERENCE
from duqsweep.control.view.decomposition import HEADER as FACTORS
from duqsweep.control.view.decomposition import NOTE, decomposition
from duqsweep.control.view.wording import stage_times
from duqsweep.errors import ConfigError
from duqsweep.files import read_record
from duqsweep.quant.select import rotates_twice
from duqsweep.result import PICTURES, PROMPT_TOKENS, Vitals
from duqsweep.setting import Setting
from duqsweep.spec import TrialSpec
from duqsweep.verbs.command import command
from duqsweep.verbs.folder import sweep_config, sweep_front

# A group is chosen once, so these give way to the user's; other keys may come twice, the last wins.
GROUPS = {"policy": "policy=pi05_libero"}
DEFAULTS = ("name=explain", "quant.include=llm_dit_all", "enqueue=[reference]")
WIDTH = 100


def main(arguments: Sequence[str]) -> int:
    """Print the cost model; or every setting of a trial, or what made the points of a front fast.

    Args:
        arguments: Overrides as of a sweep, e.g. policy=embedded, policy.num_steps=5,
            quant.block_size=64; and --vitals FILE of a trial, for measured times; or --sweep DIR,
            for what made the points of a front fast.

    Returns:
        0.

    Raises:
        ConfigError: An override is wrong, or the vitals are of another policy call.
    """
    parser = argparse.ArgumentParser(
        prog="duqsweep explain",
        description=__doc__,
        epilog="Overrides as of a sweep: policy=embedded policy.num_steps=5 quant.block_size=64.",
    )
    parser.add_argument("--vitals", type=Path, metavar="FILE", help="vitals.json of a trial")
    parser.add_argument("--settings", action="store_true", help="list the settings of a trial")
    parser.add_argument(
        "--sweep", type=Path, metavar="DIR", help="a sweep's folder: what made its front fast"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_intermixed_args(list(arguments))
    if options.settings:
        print(_settings_tables())
        return 0
    if options.sweep is not None:
        print(_speedups(options.sweep))
        return 0
    spec = _spec(options.overrides)
    vitals = None if options.vitals is None else read_vitals(options.vitals, spec)
    reads = None if vitals is None else _reads(vitals)
    sizes = policy_sizes(spec.policy)
    costs = call_costs(spec.policy.name, sizes, spec.policy.num_steps, spec.quant, reads)
    print(_heading(spec, costs))
    print(_costs_table(costs, vitals))
    print(_footnotes(vitals))
    print(_document())
    return 0


def _speedups(directory: Path) -> str:
    """The factors of each point's speed-up, as far as their twins were timed."""
    front = sweep_front(sweep_config(directory))
    rows = decomposition(front)
    parts = [table([FACTORS, *rows]), textwrap.fill(NOTE, WIDTH)] if rows else []
    if any(point.factors is None for point in front.members if point.name != REFERENCE):
        parts.append(f"To time the missing twins: {command(['twins', str(directory)])}")
    return "\n\n".join(parts) or f"{front.sweep} has no front yet"


def read_vitals(path: Path, spec: TrialSpec) -> Vitals:
    """A trial's vitals.

    Raises:
        ConfigError: There is no such file, or the trial took another number of denoising steps.
    """
    if not path.is_file():
        raise ConfigError(f"--vitals must name a trial's vitals.json, there is no file {path}")
    vitals = read_record(Vitals, path)
    steps = vitals.modelled.get("expert_forwards_per_call")
    if steps != spec.policy.num_steps:
        raise ConfigError(
            f"{path} is of a trial with {steps:g} denoising steps, explained are "
            f"{spec.policy.num_steps}: add policy.num_steps={steps:g}"
        )
    return vitals


def _reads(vitals: Vitals) -> tuple[int, int] | None:
    """Pictures and prompt tokens of the trial's calls; None where its vitals do not say."""
    found = [vitals.modelled.get(name) for name in (PICTURES, PROMPT_TOKENS)]
    pictures, tokens = (None if number is None else int(number) for number in found)
    return None if pictures is None or tokens is None else (pictures, tokens)


def _spec(overrides: Sequence[str]) -> TrialSpec:
    chosen = {word.partition("=")[0] for word in overrides}
    groups = [word for group, word in GROUPS.items() if group not in chosen]
    return compose([*groups, *DEFAULTS, *overrides]).base.spec({})


def _settings_tables() -> str:
    """Every declared setting: those that a trial can set, then those of a whole sweep."""
    own = {key: declared for key, declared in DECLARED.items() if not declared.shared}
    common = {key: declared for key, declared in DECLARED.items() if declared.shared}
    return (
        "Settings of a trial: a space searches them, plans and overrides set them\n"
        f"{_settings_table(own)}\n\n"
        f"Settings that all trials of a sweep share: overrides set them\n{_settings_table(common)}"
    )


def _settings_table(declared: Mapping[str, Setting]) -> str:
    rows = [["key", "values", "default", "meaning"]]
    for key, each in declared.items():
        shown = f"{key}.N" if f"{key}." == LAYERS else key
        rows.append([shown, _values_text(each), _default_text(each.default), each.help])
    return table(rows, right=False)


def _values_text(declared: Setting) -> str:
    kinds = {"bool": "true, false", "str": "text"}
    text = kinds.get(declared.rule, declared.rule.removeprefix("one of "))
    return f"{text}, or null" if declared.optional else text


def _default_text(default: object) -> str:
    if default == MISSING:
        return "of its group"
    if default is None or isinstance(default, bool):
        return {None: "null", False: "false", True: "true"}[default]
    return str(default) if default or isinstance(default, (int, float)) else "none"


def _heading(spec: TrialSpec, costs: Sequence[PartCost]) -> str:
    quantized = sum(cost.quantized for cost in costs)
    quant = spec.quant
    outputs = ", outputs rotated back" if quant.row_rotation else ""
    twice = " (before and after the permutation)" if rotates_twice(quant) else ""
    how = f"rotation {quant.rotation}{twice}, block {quant.block_size}{outputs}"
    return (
        f"One call of {spec.policy.name}: batch 1, {spec.policy.num_steps} denoising steps\n"
        f"{quantized} linear layers quantized: {how if quantized else 'none'}\n"
    )


def _costs_table(costs: Sequence[PartCost], vitals: Vitals | None) -> str:
    heads = ["part", "linears", "quantized", "forwards", "tokens", "rotations", "rotations"]
    units = ["", "", "", "per call", "per forward", "per forward", "per call"]
    heads += ["GFLOP", "weights MB", "packed MB"]
    units += ["per call"] * 3
    rows = [
        [
            cost.part,
            *(f"{n:,}" for n in (cost.linears, cost.quantized, cost.forwards, cost.tokens)),
            f"{cost.rotations_per_forward:,}",
            f"{cost.rotations:,}",
            *(f"{x:,.1f}" for x in _sums([cost])),
        ]
        for cost in costs
    ]
    linears, quantized = (
        sum(getattr(cost, what) for cost in costs) for what in ("linears", "quantized")
    )
    rotations = sum(cost.rotations for cost in costs)
    total = ["all", f"{linears}", f"{quantized}", "", "", "", f"{rotations:,}"]
    rows.append([*total, *(f"{x:,.1f}" for x in _sums(costs))])
    if vitals is not None:
        heads, units = [*heads, "measured"], [*units, "ms per call"]
        times = [*(vitals.parts_ms.get(cost.part) for cost in costs), vitals.call_ms.p50]
        rows = [
            [*row, "-" if ms is None else f"{ms:.2f}"] for row, ms in zip(rows, times, strict=True)
        ]
    return table([heads, units, *rows])


def _sums(costs: Sequence[PartCost]) -> tuple[float, float, float]:
    return (
        sum(cost.flops for cost in costs) / 1e9,
        sum(cost.full_bytes for cost in costs) / 1e6,
        sum(cost.packed_bytes for cost in costs) / 1e6,
    )


def _footnotes(vitals: Vitals | None) -> str:
    notes = [
        "Modelled: linear layers and rotations; attention products, norms and embeddings are left "
        "out. Weights are read once per forward, in full precision or packed at their bits with "
        "scales and rotations; kernels `fake` and `loop` read full precision.",
    ]
    if vitals is None:
        notes.append("Times: give --vitals sweeps/NAME/trials/NNNN/vitals.json of a trial.")
    else:
        gpu = vitals.hardware.get("gpu") or vitals.hardware.get("cpu") or "this machine"
        notes.append(
            f"Measured on {gpu}, kernel {vitals.kernel}: parts timed one by one, the whole apart."
        )
        notes += [f"Of the parts, {stage}: {text}." for stage, text in stage_times(vitals)]
    return "\n" + "\n".join(textwrap.fill(note, WIDTH) for note in notes)


def _document() -> str:
    document = Document()
    costs = call_costs("pi05_libero", sizes_of("pi05_libero"), 10, PROTOTYPE)
    rows = [["", "as the document counted", "what happens"]]
    rows += [list(row) for row in comparison(document, costs)]
    lines = [
        "\nThe document behind duqsweep: pi0.5, block 16, inputs and outputs rotated, W4A8",
        table(rows, right=False),
        "\nWhere the document is wrong",
    ]
    for number, mistake in enumerate(mistakes(document, costs), start=1):
        lines.append(
            textwrap.fill(mistake, WIDTH, initial_indent=f"{number:>2}. ", subsequent_indent="    ")
        )
    return "\n".join(lines)


def table(rows: Sequence[Sequence[str]], right: bool = True) -> str:
    """Rows of equal lengths as aligned columns; the first column is aligned left in any case."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right and i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
