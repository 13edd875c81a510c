"""What LIBERO's asset files hold: every name and the hash of its content; imports no simulator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from duqsweep.envs.manifest import Manifest, sha256
from duqsweep.fingerprint import digest

# Suite → the meshes, textures and descriptions that its tasks load, relative to the assets' folder;
# file → SHA-256 of its content. Made by scripts/list_official_assets.py and pro_manifest.py.
MANIFEST = Path(__file__).with_name("official_assets.json")
PRO_MANIFEST = Path(__file__).with_name("pro_assets.json")  # the same for LIBERO-PRO's suites
# Descriptions and collision meshes decide how things move; textures (.png) and visual meshes (.msh)
# are only seen. No other kinds are loaded.
PHYSICS = (".xml", ".stl")


@dataclass(frozen=True)
class AssetFiles:
    """The files of one suite in one folder, compared with LIBERO's own."""

    folder: Path
    needed: tuple[str, ...]
    missing: tuple[str, ...]
    changed: tuple[str, ...]  # present, and of other content than LIBERO's
    id: str  # digest of all names and contents

    @property
    def changed_physics(self) -> tuple[str, ...]:
        """Changed files that decide how things move."""
        return tuple(name for name in self.changed if name.endswith(PHYSICS))

    @property
    def kind(self) -> Literal["original", "stand-ins"]:
        """Whether all files are LIBERO's own, or some replace them."""
        return "stand-ins" if self.changed else "original"


def needed_files(suite: str) -> list[str]:
    """Paths, relative to LIBERO's assets, of all that an official suite loads."""
    return _manifest().suites[suite]


def read_files(folder: Path, suite: str) -> AssetFiles:
    """Hash what a suite loads from a folder (0.1 s for libero_spatial, 0.4 s for libero_10)."""
    expected = _manifest().files
    names = needed_files(suite)
    found = {name: sha256(folder / name) for name in names if (folder / name).is_file()}
    return AssetFiles(
        folder=folder,
        needed=tuple(names),
        missing=tuple(name for name in names if name not in found),
        changed=tuple(name for name, content in found.items() if content != expected[name]),
        id=digest(found),
    )


@cache
def _manifest() -> Manifest:
    official, pro = Manifest.read(MANIFEST), Manifest.read(PRO_MANIFEST)
    return Manifest(official.suites | pro.suites, official.files | pro.files)
