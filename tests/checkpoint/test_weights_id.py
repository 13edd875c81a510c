"""What identifies a policy's weights depends on every byte, wherever pieces end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from duqsweep.checkpoint import weights_id as hashing
from duqsweep.checkpoint.locate import WEIGHTS
from duqsweep.checkpoint.weights_id import begin_to_identify, forget_identity, weights_id
from duqsweep.spec import PolicySpec

MB = 1 << 20


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "PIECE_MB", 2)


def identity(folder: Path, content: bytes) -> str:
    folder.mkdir(exist_ok=True)
    (folder / WEIGHTS).write_bytes(content)
    return weights_id(PolicySpec("embedded", str(folder)))


@pytest.mark.parametrize("size", [5, 2 * MB, 5 * MB + 7])
def test_every_byte_counts_and_the_place_of_the_file_does_not(tmp_path: Path, size: int) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    content = content[:size]
    found = identity(tmp_path / "first", content)
    assert identity(tmp_path / "copy", content) == found
    for place in {0, size // 2, size - 1, min(2 * MB, size - 1)}:
        changed = bytearray(content)
        changed[place] ^= 1
        assert identity(tmp_path / "changed", bytes(changed)) != found
    assert identity(tmp_path / "longer", content + b"\0") != found
    assert identity(tmp_path / "shorter", content[:-1]) != found


def test_what_has_begun_is_computed_once_until_it_is_forgotten(tmp_path: Path) -> None:
    content = b"weights" * 1000
    found = identity(tmp_path, content)
    spec = PolicySpec("embedded", str(tmp_path))
    begun = begin_to_identify(spec)
    assert begun.result() == found
    (tmp_path / WEIGHTS).write_bytes(content + b"!")
    assert begin_to_identify(replace(spec, num_steps=3)) is begun
    forget_identity()
    assert begin_to_identify(spec).result() == weights_id(spec) != found
    (tmp_path / WEIGHTS).unlink()
    forget_identity()
    with pytest.raises(FileNotFoundError):
        begin_to_identify(spec).result()
    forget_identity()
