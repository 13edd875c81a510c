"""Where the shipped configuration lies and what its groups offer; without Hydra, to be quick."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent


def conf_dir() -> Path:
    """The folder `conf/`: inside an installed package, or beside it in a checkout."""
    installed = PACKAGE / "conf"
    return installed if installed.is_dir() else PACKAGE.parent / "conf"


def own_conf_dir() -> Path:
    """Where sweeps of a user's own lie: `conf/` in the working directory, laid out as ours."""
    return Path("conf")


def has_own() -> bool:
    """Whether the working directory holds sweeps of its own."""
    own = own_conf_dir()
    return (own / "sweep").is_dir() and own.resolve() != conf_dir().resolve()


def group_options() -> dict[str, list[str]]:
    """Group → its options, e.g. "sampler" → ["gp", "grid", …]; the user's own sweeps too."""
    groups = sorted(path for path in conf_dir().iterdir() if path.is_dir())
    options = {group.name: {file.stem for file in group.glob("*.yaml")} for group in groups}
    if has_own():
        options["sweep"] |= {file.stem for file in (own_conf_dir() / "sweep").glob("*.yaml")}
    return {group: sorted(names) for group, names in options.items()}
