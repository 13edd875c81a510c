"""A sweep's own file as its author first writes it: what Hydra would misunderstand is refused."""

from __future__ import annotations

import codecs
import itertools
import re
from pathlib import Path

import yaml

from duqsweep.errors import ConfigError

HEADER = "# @package _global_"


def check_sweep_file(path: Path) -> None:
    """Raise ConfigError unless Hydra can take the file for a sweep.

    The message names the file, the line where there is one, and the corrected form. What is not
    YAML is left to Hydra, which says where.
    """
    content = path.read_bytes()
    if content.startswith(codecs.BOM_UTF8):
        raise ConfigError(
            f"{path}:1: it starts with a byte order mark, which hides its first line from Hydra; "
            "save it as UTF-8 without one"
        )
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}:{line}: byte 0x{content[error.start]:02x} is not UTF-8; save it as UTF-8"
        ) from error
    if not re.search(r"[^\s#-]", re.sub(r"#.*", "", text)):
        raise ConfigError(f"{path}: it is empty; a sweep has a name, and a space or plans")
    if not any(re.fullmatch(r"#\s*@package\s+_global_", line) for line in _header(text)):
        raise ConfigError(f"{path}:1: its first line must be `{HEADER}`, before any other comment")


def line_of(path: Path, key: str) -> int | None:
    """The line on which a dotted key stands in a file; None where it is not found."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except (OSError, yaml.YAMLError):
        return None
    line = None
    for name in key.split("."):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = next(((k, v) for k, v in pairs if k.value == name), None)
        if found is None:
            return line
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _header(text: str) -> list[str]:
    """The lines in which Hydra looks for its header: it stops at the first other one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return list(itertools.takewhile(lambda line: re.match(r"#\s*@", line), lines))
