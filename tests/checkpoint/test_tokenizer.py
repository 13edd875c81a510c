"""The prompt's text and its tokens, with a small model of the kind that PaliGemma uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from duqsweep.checkpoint.tokenizer import PromptTokenizer, state_bins
from duqsweep.errors import ConfigError, EvaluationError
from duqsweep.policy.random_pi05 import train_tokenizer

STATE = np.array([-1.0, -0.995, 0.0, 0.99, 1.0, 1.5, -1.2, 0.5])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_tokenizer(path)
    return path


def text_of(model: Path, ids: np.ndarray) -> str:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    assert ids[0] == pieces.bos_id()
    return str(pieces.decode(ids[1:].tolist()))


def test_the_prompt_holds_instruction_and_bins(model: Path) -> None:
    ids = PromptTokenizer(model, 300, 200).with_state(" pick up_the\nbowl ", STATE)
    prompt = "Task: pick up the bowl, State: 0 0 128 254 255 255 -1 192;\nAction: "
    assert text_of(model, ids) == prompt


def test_without_the_state_the_prompt_is_the_instruction_and_a_line_break(model: Path) -> None:
    ids = PromptTokenizer(model, 300, 200).without_state("Pick up the plate")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    assert text_of(model, ids[:-1]) == "Pick up the plate"
    assert ids[-1] == pieces.piece_to_id("\n")


@given(st.floats(-2, 2))
def test_a_bin_is_the_last_whose_lower_edge_is_not_above(value: float) -> None:
    below = [i for i in range(256) if -1 + i / 128 <= value]
    assert state_bins(np.array([value])) == [below[-1] if below else -1]


def test_a_prompt_that_is_too_long_is_refused(model: Path) -> None:
    with pytest.raises(EvaluationError, match=r"reads 5 tokens, the prompt 'pick up the bowl' has"):
        PromptTokenizer(model, 300, 5).without_state("pick up the bowl")


def test_another_policys_tokenizer_is_refused(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"\d+ pieces for 60 embeddings"):
        PromptTokenizer(model, 60, 200)
