"""`renderer=auto` takes EGL where a GPU draws, and OSMesa everywhere else."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from duqsweep.envs import rendering
from duqsweep.errors import InfrastructureError


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    rendering.resolve_renderer.cache_clear()
    rendering.begin_to_resolve.cache_clear()
    yield
    rendering.resolve_renderer.cache_clear()
    rendering.begin_to_resolve.cache_clear()


@pytest.fixture
def gpu_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "card0").touch()
    monkeypatch.setattr(rendering, "GPU_DEVICES", (f"{tmp_path}/card[0-9]".lstrip("/"),))


@pytest.mark.parametrize("asked", ["osmesa", "egl"])
def test_a_named_renderer_is_taken_without_asking(asked: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rendering, "egl_device", lambda: pytest.fail("asked"))
    assert rendering.resolve_renderer(asked) == asked


@pytest.mark.parametrize(
    ("device", "taken"),
    [("NVIDIA H100 80GB HBM3/PCIe/SSE2", "egl"), ("llvmpipe (LLVM 15.0.6, 256 bits)", "osmesa")],
)
def test_auto_takes_what_draws_and_says_so(
    device: str,
    taken: str,
    gpu_device: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr(rendering, "egl_device", lambda: device)
    with caplog.at_level(logging.INFO):
        assert rendering.resolve_renderer("auto") == taken
    assert f"renderer: {taken}" in caplog.text
    assert device in caplog.text


def test_auto_takes_osmesa_where_egl_fails(
    gpu_device: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def broken() -> str:
        raise InfrastructureError("libEGL.so.1: cannot open")

    monkeypatch.setattr(rendering, "egl_device", broken)
    with caplog.at_level(logging.INFO):
        assert rendering.resolve_renderer("auto") == "osmesa"
    assert "libEGL.so.1: cannot open" in caplog.text


def test_without_a_gpu_device_nothing_is_tried(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rendering, "GPU_DEVICES", ("dev/no-such-gpu*",))
    monkeypatch.setattr(rendering, "egl_device", lambda: pytest.fail("asked"))
    assert rendering.resolve_renderer("auto") == "osmesa"


def test_egl_is_asked_in_a_process_of_its_own():
    """Mesa draws through EGL on the processor where no GPU does."""
    try:
        device = rendering.egl_device()
    except InfrastructureError as error:
        pytest.skip(f"no EGL here: {error}")
    assert device
