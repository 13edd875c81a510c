"""The prompt's text and its tokens, with a small model of the kind that PaliGemma uses."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from duqsweep.checkpoint.tokenizer import GEMMA_PIECES, PromptTokenizer, state_bins
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


def other_model(path: Path, **options: object) -> Path:
    """A sentencepiece model as other language models have it."""
    written = BytesIO()
    sentences = ["Task: pick up the bowl, State: 0 64 128 255 -1;", "Action: place it"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=written,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    path.write_bytes(written.getvalue())
    return path


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({}, r"ids of pad, eos, bos and unk are \(-1, 2, 1, 0\), PaliGemma's are \(0, 1, 2, 3\)"),
        (
            {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3},
            r"it reads the prompt 'Task: .*;\\nAction: ' as 'Task: .*Action:",
        ),
    ],
    ids=["Llama's", "without line breaks"],
)
def test_another_language_models_tokenizer_is_refused(
    options: dict[str, object], rule: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rule):
        PromptTokenizer(other_model(tmp_path / "tokenizer.model", **options), 300, 200)


def test_a_tokenizer_of_another_vocabulary_is_refused(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"\d+ pieces for 60 embeddings$"):
        PromptTokenizer(model, 60, 200)
    rule = r"\d+ pieces for 257152 embeddings; at least 256000 are needed"
    with pytest.raises(ConfigError, match=rule):
        PromptTokenizer(model, 257152, 200, GEMMA_PIECES)
