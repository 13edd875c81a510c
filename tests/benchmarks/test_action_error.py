"""The table of rotations is printed, and its errors are those of quantized layers and actions."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import action_error
import pytest
import torch
from torch import nn

from duqsweep.worker.cache import WorkerCache
from duqsweep.worker.observations import FixedObservations


def test_one_line_a_setting_tells_what_layers_and_actions_lose(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class FewObservations(WorkerCache):
        def observations(self, *args: Any) -> FixedObservations:
            found = super().observations(*args)
            return replace(found, calibration=found.calibration[:2], measured=found.measured[:2])

    monkeypatch.setattr(action_error, "NOISES", 1)
    monkeypatch.setattr(action_error, "WorkerCache", FewObservations)
    words = ["--rotation", "hadamard", "--block", "16", "--bits", "8,8", "2,8"]
    assert action_error.main([*words, "--include", "dit_mlp"]) == 0
    head, _, row = capsys.readouterr().out.splitlines()
    assert head.count("W2A8") == head.count("W8A8") == 2
    layers8, layers2, actions8, actions2 = map(float, re.findall(r"0\.\d{3}", row))
    assert 0 < layers8 < 0.05 < layers2
    assert 0 < actions8 < 0.05 < actions2


def test_layers_that_are_not_quantized_have_no_error() -> None:
    module = nn.Sequential(nn.Linear(8, 4))
    assert action_error.layers_error(module, module, {"0": torch.ones(3, 8)}) == 0
