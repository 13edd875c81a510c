"""Vector instructions are tried unless both compiler and processor are known to have them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from duqsweep.inference import cpu_compiler
from duqsweep.inference.cpu_compiler import KNOWS_VECTORS, compiler_version, cpu_options


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    cpu_options.cache_clear()
    yield
    cpu_options.cache_clear()


@pytest.mark.parametrize(
    ("script", "version"),
    [
        ("echo 12", 12),
        ("echo 14.0.6", 14),
        ("echo 4.2.1", 4),
        ("echo what?", 0),
        ("exit 1", 0),
    ],
)
def test_the_compilers_major_version(
    script: str, version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import cpp_builder

    compiler = tmp_path / "c++"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: str(compiler))
    assert compiler_version() == version


@pytest.mark.parametrize(
    ("capability", "version", "known"),
    [
        ("AVX512", KNOWS_VECTORS, True),
        ("AVX2", KNOWS_VECTORS + 2, True),
        ("AVX512", KNOWS_VECTORS - 1, False),
        ("DEFAULT", KNOWS_VECTORS, False),
        ("SVE256", KNOWS_VECTORS, False),
    ],
)
def test_nothing_is_tried_where_both_are_known(
    capability: str, version: int, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(cpu_compiler, "compiler_version", lambda: version)
    assert cpu_options().get("cpp.vec_isa_ok", False) == known
