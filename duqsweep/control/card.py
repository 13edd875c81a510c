"""A model card of one trial: what it is, how well it does, what it costs, how to have it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import yaml

from duqsweep.control.front.measures import (
    CALL_MS,
    EPISODE_TIME_S,
    SUCCESS_RATE,
    WEIGHTS_MB,
    measures_of,
)
from duqsweep.control.front.records import Front, FrontPoint
from duqsweep.control.front.success import SuccessEstimate
from duqsweep.control.trial_words import TrialWords, text
from duqsweep.control.trials.reader import TrialView
from duqsweep.control.view.simulation import simulator_line, warnings
from duqsweep.control.view.wording import interval, kernel_note
from duqsweep.errors import ConfigError
from duqsweep.result import Vitals

_STATES = {
    "confirmed": "Confirmed on initial states that the search never saw.",
    "refuted": "**Refuted** on initial states that the search never saw: it loses more success "
    "against the unquantized policy than the sweep tolerates.",
    "unconfirmed": "**Not confirmed** on initial states that the search never saw. The points of a "
    "front were chosen by their success, so their rates are too good by some points.",
}


def model_card(view: TrialView, front: Front, words: TrialWords) -> str:
    """The card as Markdown, its data as YAML at the top.

    Args:
        view: The trial, with vitals and a result.
        front: Of its sweep.
        words: That describe the trial again.

    Raises:
        ConfigError: The trial was not measured, or has no result.
    """
    point = next((point for point in front.points if point.trial == view.number), None)
    if point is None or view.vitals is None:
        raise ConfigError(
            f"a card needs a trial that was measured and has ended, and trial {view.number} of "
            f"{front.sweep} {'was not measured' if view.vitals is None else 'runs'}"
        )
    head = yaml.safe_dump(_data(view, view.vitals, point, front, words), sort_keys=False)
    lines = [
        f"---\n{head}---",
        f"# {view.trial.spec.policy.name}, trial {view.number} of {front.sweep}",
        _STATES[point.state],
        _success_section(point),
        _cost_section(view, view.vitals, point, front),
        _settings_section(view, words),
        _origin_section(view, view.vitals, front),
    ]
    return "\n\n".join(lines) + "\n"


def _data(
    view: TrialView, vitals: Vitals, point: FrontPoint, front: Front, words: TrialWords
) -> dict[str, Any]:
    """What a program reads of the card; all of it is in front.json too, but for the words."""
    measures = measures_of(view.trial.spec.suite)
    known = {n: point.value(m) for n, m in measures.items() if point.value(m) is not None}
    reserved = point.reserved
    return {
        "tags": ["robotics", "vision-language-action", "quantization", "duqsweep"],
        "duqsweep": {
            "sweep": front.sweep,
            "trial": view.number,
            "fingerprint": view.trial.fingerprint,
            "shared": list(words.shared),
            "settings": dict(words.settings),
            "measures": known,
            "success": _estimate(point.success),
            "state": point.state,
            "reserved_states": None if reserved is None else _estimate(reserved.success),
            "hardware": dict(vitals.hardware),
        },
    }


def _estimate(success: SuccessEstimate) -> dict[str, float | int | None]:
    return {
        "low": success.success_low,
        "high": success.success_high,
        "successes": success.counts.successes,
        "episodes": success.counts.ran,
    }


def _table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _success_section(point: FrontPoint) -> str:
    if not point.success.counts.ran:
        return "## Success\n\nIt played no episode."

    def rows() -> Iterator[tuple[str, ...]]:
        yield _success_row("the search's episodes (Wilson, 95 %)", point.success)
        if point.reserved is not None:
            yield _success_row("reserved states (exact, held jointly)", point.reserved.success)
        for name, estimate in point.categories.items():
            yield _success_row(f"category {name} (Wilson, 95 %)", estimate)

    return f"## Success\n\n{_table(('on', 'succeeded', 'rate', 'interval'), rows())}"


def _success_row(what: str, estimate: SuccessEstimate) -> tuple[str, ...]:
    counts = f"{estimate.counts.successes} of {estimate.counts.ran}"
    return what, counts, SUCCESS_RATE.text(estimate.success_rate), interval(estimate)


def _cost_section(view: TrialView, vitals: Vitals, point: FrontPoint, front: Front) -> str:
    hardware = vitals.hardware
    machine = hardware.get("gpu") or hardware.get("cpu") or "an unknown machine"
    measures = measures_of(view.trial.spec.suite).values()
    shown = [m for m in measures if not m.needs_episodes and point.value(m) is not None]
    reference = front.reference

    def rows() -> Iterator[tuple[str, ...]]:
        for measure in shown:
            unit = f" {measure.unit}" if measure is WEIGHTS_MB else ""
            plain = None if reference is None else reference.value(measure)
            yield measure.label, f"{point.text(measure)}{unit}", measure.text(plain)

    header = ("", "this trial", "unquantized, eager")
    return (
        f"## Cost\n\nMeasured on {machine} at batch 1, kernel {kernel_note(vitals.kernel)}; "
        f"{CALL_MS.name} and {EPISODE_TIME_S.name} are scaled to the sweep's reference.\n\n"
        f"{_table(header, rows())}"
    )


def _settings_section(view: TrialView, words: TrialWords) -> str:
    rows = ((f"`{key}`", f"`{text(value)}`") for key, value in words.settings.items())
    return (
        f"## Settings\n\n{_table(('key', 'value'), rows)}\n\nTo evaluate it again:\n\n"
        f"```bash\npython -m duqsweep evaluate {shlex.join(words.overrides)}\n```"
    )


def _origin_section(view: TrialView, vitals: Vitals, front: Front) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in vitals.versions.items())
    commit = f", commit {vitals.git}" if vitals.git else ""
    played_by = [line for line in [simulator_line(front.simulator)] if line]
    lines = [f"fingerprint `{view.trial.fingerprint}`{commit}", versions, *played_by]
    lines += [f"**{line}**" for line in warnings(front.simulator)]
    return "## Origin\n\n" + "\n".join(f"- {line}" for line in lines)
