"""Any text tokenizes: the fast T5 tokenizer gives SentencePiece's own ids, and nothing is unknown to either."""

import random
from pathlib import Path

import pytest
import sentencepiece
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

from training.captions import caption, elsewhere
from training.data import load_tokenizers, token_ids
from training.scene import random_scene
from training.tokenizers import PROMPT_TOKENS_MAX

Pieces = sentencepiece.SentencePieceProcessor
Tokenizers = tuple[CLIPTokenizer, PreTrainedTokenizerFast]
SCRIPTS = {
    "Latin": "Ein Bär über dem Fluß, naïve façade",
    "Han": "一个红色的大圆形在蓝色的小正方形上方，龘",
    "Kana": "赤い丸とカタカナ",
    "Hangul": "빨간 동그라미",
    "Cyrillic": "красный круг и ёж",
    "Greek": "κόκκινος κύκλος",
    "Arabic": "دائرة حمراء",
    "Hebrew": "עיגול אדום",
    "Devanagari": "लाल वृत्त",
    "Thai": "วงกลมสีแดง",
    "Georgian": "წითელი წრე",
    "Emoji": "🔴 above 🟦 👩‍🚀",
}


@pytest.fixture(scope="module")
def tokenizers(shapes_folder: Path) -> Tokenizers:
    return load_tokenizers(shapes_folder)


@pytest.fixture(scope="module")
def pieces(shapes_folder: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(shapes_folder / "tokenizer_2" / "spiece.model"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_script_is_unknown(script: str, tokenizers: Tokenizers, pieces: Pieces):
    clip, t5 = tokenizers
    text = SCRIPTS[script]
    ids = t5(text).input_ids
    assert ids == [*pieces.encode(text), t5.eos_token_id]
    assert t5.unk_token_id not in ids
    clip_ids = clip(text).input_ids
    assert clip_ids[0] == clip.bos_token_id
    assert clip.unk_token_id not in clip_ids[1:-1]


def test_ids_are_sentencepieces_own(tokenizers: Tokenizers, pieces: Pieces):
    _, t5 = tokenizers
    rng = random.Random(8)
    texts = [caption(random_scene(rng), rng) for _ in range(400)] + [elsewhere(rng) for _ in range(200)]
    texts += ["", "  a   b  ", "①ﬁ Ａ", "tab\there", "ｶﾀｶﾅ"]
    for text in texts:
        assert t5(text).input_ids == [*pieces.encode(text), t5.eos_token_id], text


def test_captions_fit_the_prompt(tokenizers: Tokenizers):
    rng = random.Random(9)
    captions = [caption(random_scene(rng), rng) for _ in range(1000)]
    assert all(max(len(t(text).input_ids) for t in tokenizers) < PROMPT_TOKENS_MAX for text in captions)
    clip_ids, t5_ids = token_ids(captions[:3], *tokenizers)
    assert clip_ids.shape == t5_ids.shape == (3, PROMPT_TOKENS_MAX)
