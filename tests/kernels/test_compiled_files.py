"""Compiled kernels are read from disk exactly where nothing that shaped them has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from duqsweep.kernels import compiled_files


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was compiled, in order; the folder is empty."""
    tmp_path.chmod(0o700)
    monkeypatch.setattr(compiled_files, "_folder", lambda: tmp_path)
    return []


def machine_code(name: str, made_from: list[bytes], compile_it: Callable[[], bytes]) -> bytes:
    return compiled_files.compiled_file(name, ".cubin", made_from, compile_it).read_bytes()


def test_a_kernel_is_compiled_once(compiled: list[str]) -> None:
    def compile_it() -> bytes:
        compiled.append("expert")
        return b"\x7fELF"

    parts = [b"12.9", b"-arch=sm_90a", b"source", b"header"]
    for _ in range(2):
        assert machine_code("expert", parts, compile_it) == b"\x7fELF"
    assert compiled == ["expert"]


@pytest.mark.parametrize(
    "changed",
    [
        [b"13.0", b"-arch=sm_90a", b"source"],
        [b"12.9", b"-arch=sm_100a", b"source"],
        [b"12.9", b"-arch=sm_90a", b"other source"],
        [b"12.9", b"-arch=sm_90as", b"ource"],  # the same bytes, divided otherwise
    ],
)
def test_another_compiler_option_or_source_gives_another_kernel(
    compiled: list[str], changed: list[bytes]
) -> None:
    parts = [b"12.9", b"-arch=sm_90a", b"source"]
    machine_code("expert", parts, lambda: b"old")
    assert machine_code("expert", changed, lambda: b"new") == b"new"
    assert machine_code("expert", parts, lambda: b"never") == b"old"
