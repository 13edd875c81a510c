"""Where the shipped configuration lies and what its groups offer; without Hydra, to be quick."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent


def conf_dir() -> Path:
    """The folder `conf/`: inside an installed package, or beside it in a checkout."""
    installed = PACKAGE / "conf"
    return installed if installed.is_dir() else PACKAGE.parent / "conf"


def group_options() -> dict[str, list[str]]:
    """Group → its options, e.g. "sampler" → ["gp", "grid", …]."""
    groups = sorted(path for path in conf_dir().iterdir() if path.is_dir())
    return {group.name: sorted(file.stem for file in group.glob("*.yaml")) for group in groups}
