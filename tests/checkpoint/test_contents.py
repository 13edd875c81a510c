"""A checkpoint is identified by the content of its files, not by its path."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from duqsweep.checkpoint import contents
from duqsweep.checkpoint.contents import checkpoint_contents
from duqsweep.spec import PolicySpec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pi05"
    (folder / "assets").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(os.urandom(3 << 20))
    (folder / "assets" / "norm_stats.json").write_text("{}")
    (folder / "README.md").write_text("read me")
    return folder


def of(folder: Path, tokenizer: Path | None = None) -> dict[str, str]:
    return checkpoint_contents(
        PolicySpec("pi05_libero", str(folder), str(tokenizer) if tokenizer else None)
    )


def test_a_copy_is_the_same_and_the_shipped_policy_has_no_files(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    assert of(copy) == of(folder)
    assert list(of(folder)) == ["assets/norm_stats.json", "model.safetensors"]
    assert checkpoint_contents(PolicySpec("embedded")) == {}


@pytest.mark.parametrize("whole_mb", [32, 1])
def test_other_weights_statistics_or_tokenizer_are_seen(folder, tmp_path, monkeypatch, whole_mb):
    monkeypatch.setattr(contents, "WHOLE_MB", whole_mb)
    tokenizer = tmp_path / "tokenizer.model"
    tokenizer.write_bytes(b"words")
    seen = [of(folder, tokenizer)]
    (folder / "model.safetensors").write_bytes(os.urandom(3 << 20))
    seen.append(of(folder, tokenizer))
    (folder / "assets" / "norm_stats.json").write_text("[]")
    seen.append(of(folder, tokenizer))
    tokenizer.write_bytes(b"sword")
    seen.append(of(folder, tokenizer))
    assert all(seen[i] != seen[j] for i in range(4) for j in range(i))
