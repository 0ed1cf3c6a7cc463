"""The embedded model's tokenizers: SentencePiece's own ids in every script, and no word lost."""

from typing import Any

import numpy as np
import pytest
import sentencepiece
from safetensors.numpy import load_file

from gpu_daemon.model_folder import EMBEDDED
from training import models

TEXTS = [
    "a red circle on a blue background",
    "A Cat! with CAPITALS, 3 dogs & 12% more…",
    "  blanks   at every    end  ",
    "tab\tnew\nline\r\n",
    "маленький дом в зимнем лесу, Ёлка",
    "一只猫在窗边睡觉。龍が飛ぶ、ナイト",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "한국어 문장",
    "🚀👩‍🚀 emoji and 𝔣𝔯𝔞𝔨𝔱𝔲𝔯",
    "éè combining e\u0301, ß, İ",
    "▁ the mark itself",
    "x" * 300,
    "\u200bzero width\u00a0hard blank",
    "",
    " ",
]


@pytest.mark.parametrize("text", TEXTS)
def test_t5_ids_are_sentencepieces(pipe: Any, text: str):
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(EMBEDDED / "tokenizer_2" / "spiece.model"))
    assert pipe.tokenizer_2(text).input_ids == [*pieces.encode(text), pieces.eos_id()]


@pytest.mark.parametrize("text", TEXTS)
def test_nothing_is_unknown(pipe: Any, text: str):
    assert pipe.tokenizer_2.unk_token_id not in pipe.tokenizer_2(text).input_ids
    clip = pipe.tokenizer(text).input_ids
    assert pipe.tokenizer.unk_token_id not in clip[:-1], "CLIP's end mark is its unknown mark"


@pytest.mark.parametrize("text", ["a red circle", "маленький дом", "一只猫", "🚀"])
def test_both_decode_to_the_same_words(pipe: Any, text: str):
    for tokenizer in (pipe.tokenizer, pipe.tokenizer_2):
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True).strip() == text


def test_the_shipped_folder_is_small_and_of_the_trained_shapes():
    files = [path for path in EMBEDDED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 32 * 2**20
    new = {"transformer": models.new_transformer(), "vae": models.new_vae()}
    for name, module in new.items():
        (file,) = (EMBEDDED / name).glob("*.safetensors")
        shipped = load_file(file)
        assert {key: tuple(value.shape) for key, value in shipped.items()} == {
            key: tuple(value.shape) for key, value in module.state_dict().items()
        }
        assert {str(value.dtype) for value in shipped.values()} == {"float16"}
        assert all(np.isfinite(value).all() for value in shipped.values())
