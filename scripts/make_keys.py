"""Write docs/keys.md: every key of the configuration, from the declarations in the code."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import MISSING

from duqsweep.control.config import schema
from duqsweep.control.config.settings import DECLARED, LAYERS, SECTIONS
from duqsweep.setting import Setting

PAGE = Path(__file__).parent.parent / "docs" / "keys.md"
HEAD = """\
# Keys

Every key of a sweep, made by `scripts/make_keys.py` from the declarations in the code.
`python -m duqsweep +sweep=NAME --cfg job` prints the values of one sweep. A value is changed on the
command line (`budget.trials=40`) or in the sweep's file; groups (`launcher=slurm`) change several
at once.
"""
ROW = "| `{}` | {} | {} | {} |"
TABLE = "| key | values | default | meaning |\n|---|---|---|---|"


def text() -> str:
    """The page."""
    own = {key: declared for key, declared in DECLARED.items() if not declared.shared}
    common = {key: declared for key, declared in DECLARED.items() if declared.shared}
    parts = [
        HEAD,
        "## Settings of a trial\n\nA space searches them; plans and overrides set them.\n",
        _settings(own),
        "\n## Settings that all trials of a sweep share\n",
        _settings(common),
        "\n## The sweep\n",
        TABLE,
        *(ROW.format(*row) for row in _fields("", schema.RootConfig)),
    ]
    return "\n".join(parts).replace("|x|", "\\|x\\|") + "\n"


def _settings(declared: dict[str, Setting]) -> str:
    rows = [TABLE]
    for key, each in declared.items():
        shown = f"{key}.N" if f"{key}." == LAYERS else key
        null = ", or null" if each.optional else ""
        rows.append(ROW.format(shown, each.rule + null, _value(each.default), each.help))
    return "\n".join(rows)


def _fields(prefix: str, section: type) -> Iterator[tuple[str, str, str, str]]:
    """Key, type, default and the comment beside the declaration, of a section and those below."""
    hints = get_type_hints(section)
    source = inspect.getsource(section)
    for each in dataclasses.fields(section):
        key, hint = f"{prefix}{each.name}", hints[each.name]
        if key in SECTIONS:  # settings of a trial, but for what SLURM is asked for
            if key == "policy":
                yield from _fields("policy.needs.", schema.NeedsConfig)
            continue
        if dataclasses.is_dataclass(hint):
            yield from _fields(f"{key}.", hint)  # type: ignore[arg-type]
            continue
        comment = re.search(rf"^    {each.name}: .*?  # (.*)$", source, re.MULTILINE)
        if key == "objectives":
            inside = _fields("", schema.ObjectiveConfig)
            meaning = "what the sweep trades: " + "; ".join(f"`{n}`: {m}" for n, _, _, m in inside)
        else:
            meaning = comment[1] if comment else ""
        default = each.default
        if default is dataclasses.MISSING and each.default_factory is not dataclasses.MISSING:
            default = each.default_factory()
        yield key, _type(hint), _value(default), meaning


def _type(hint: Any) -> str:
    named = hint.__name__ if isinstance(hint, type) else str(hint)
    plain = re.sub(r"typing\.|duqsweep\.\S+\.", "", named)
    return plain.replace(" | None", ", or null").replace("ObjectiveConfig", "dict")


def _value(value: Any) -> str:
    if value in (dataclasses.MISSING, MISSING):
        return "–"
    plain = {None: "null", True: "true", False: "false"}
    return plain[value] if value is None or isinstance(value, bool) else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
